package lazy_test

import (
	"testing"

	"github.com/httvps/httvps/sdk/go/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }
