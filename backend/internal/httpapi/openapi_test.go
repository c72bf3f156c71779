package httpapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/httvps/httvps/internal/apidiff"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestTheOpenAPIDocumentIsTheCommittedOne(t *testing.T) {
	const golden = "../../../docs/openapi.json"
	got, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/openapi.json is not what the code says: run the test with -update and review the difference")
	}
}

// Clients of the last release go on working. What is broken on purpose is in
// testdata/breaks.json with the reason, until the next release.
func TestNothingBreaksClientsOfTheLastRelease(t *testing.T) {
	released, err := os.ReadFile("../../../docs/openapi-released.json")
	if err != nil {
		t.Fatal(err)
	}
	now, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile("testdata/breaks.json")
	if err != nil {
		t.Fatal(err)
	}
	var meant map[string]string
	if err := json.Unmarshal(list, &meant); err != nil {
		t.Fatal(err)
	}
	found, err := apidiff.Breaking(released, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range found {
		if meant[change] == "" {
			t.Errorf("breaks clients of the last release: %s", change)
		}
		delete(meant, change)
	}
	for change := range meant {
		t.Errorf("testdata/breaks.json has what does not break: %s", change)
	}
}
