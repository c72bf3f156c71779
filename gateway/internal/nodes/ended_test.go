package nodes

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

func TestEndsOfSessionsAreToldUntilTheyAreHeard(t *testing.T) {
	c := newControl(t)
	public, _ := newKey(t)
	c.answerKeys(serviceID, public)
	var tries atomic.Int32
	told := make(chan int, 100)
	c.handle["/api/v1/gateway/sessions/end"] = func(body map[string]any) (int, any) {
		if tries.Add(1) == 1 {
			return 503, nil
		}
		told <- len(body["sessions"].([]any))
		return 204, nil
	}
	n := c.node(t, nil)
	for i := range 2500 {
		n.Ended([16]byte{byte(i), byte(i >> 8)}, "no_error")
	}
	running(t, n)
	for _, want := range []int{1000, 1000, 500} {
		if got := <-told; got != want {
			t.Errorf("a batch of %d, want %d", got, want)
		}
	}
}

func TestEndsThatTheControlPlaneNeverTakesAreDropped(t *testing.T) {
	c := newControl(t)
	c.handle["/api/v1/gateway/sessions/end"] = func(map[string]any) (int, any) { return 422, nil }
	n := c.node(t, nil)
	n.Ended([16]byte{1}, "no_error")
	if err := n.flush(t.Context()); err != nil || len(n.ended.first()) != 0 {
		t.Errorf("flush = %v, %d left", err, len(n.ended.first()))
	}
}

func TestQuestionsWithoutAnAnswerLeaveRoomForTheEndsOfSessions(t *testing.T) {
	c := newControl(t)
	told := make(chan []any, 10)
	c.handle["/api/v1/gateway/sessions/end"] = func(body map[string]any) (int, any) {
		told <- body["sessions"].([]any)
		return 204, nil
	}
	n := c.node(t, func(cfg *Config) { cfg.MaxEnded = 2 })
	for i := range maxUndecided + 3 {
		n.ended.addUndecided(ended{SessionID: strconv.Itoa(i), Reason: "retry_later"})
	}
	n.Ended([16]byte{0xaa}, "no_error")
	n.Ended([16]byte{0xbb}, "no_error")
	if err := n.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(told)
	var ids []string
	for batch := range told {
		for _, item := range batch {
			ids = append(ids, item.(map[string]any)["session_id"].(string))
		}
	}
	if len(ids) != maxUndecided+2 || !strings.HasPrefix(ids[0], "aa") || !strings.HasPrefix(ids[1], "bb") || ids[2] != "3" ||
		ids[len(ids)-1] != strconv.Itoa(maxUndecided+2) {
		t.Errorf("%d are told, the first %v", len(ids), ids[:min(len(ids), 3)])
	}
}

func TestWhatIsForgottenWhileABatchIsToldTakesNothingElseAlong(t *testing.T) {
	n := newControl(t).node(t, nil)
	for i := range maxUndecided {
		n.ended.addUndecided(ended{SessionID: strconv.Itoa(i)})
	}
	n.Ended([16]byte{0xaa}, "no_error")
	told := len(n.ended.first()) // one and 999
	n.ended.addUndecided(ended{SessionID: "later"})
	n.Ended([16]byte{0xbb}, "no_error")
	n.ended.drop()
	next := n.ended.first()
	if told != endedBatch || !strings.HasPrefix(next[0].SessionID, "bb") || next[1].SessionID != "999" {
		t.Errorf("after a batch of %d come %v", told, next[:2])
	}
}

func TestTheQueueOfEndsIsBounded(t *testing.T) {
	n := newControl(t).node(t, func(cfg *Config) { cfg.MaxEnded = 2 })
	for i := range 5 {
		n.Ended([16]byte{byte(i)}, "no_error")
	}
	if got := len(n.ended.first()); got != 2 {
		t.Errorf("%d are kept, want 2", got)
	}
}

func TestTheLastEndsAreToldWhenTheGatewayStops(t *testing.T) {
	c := newControl(t)
	public, _ := newKey(t)
	c.answerKeys(serviceID, public)
	n := c.node(t, nil)
	stop := running(t, n)
	<-n.Ready()
	n.Ended([16]byte{1}, "shutdown")
	stop()
	if c.count("/api/v1/gateway/sessions/end") == 0 || len(n.ended.first()) != 0 {
		t.Error("the end of the last session was not told")
	}
}
