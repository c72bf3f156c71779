package control_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/internal/sslink"
)

// pool is a world with a gateway, whose sessions leave through Outline servers.
type pool struct {
	*world
	records *store.Store
	gateway control.Gateway
	device  control.Device
	made    atomic.Int64
}

const poolPassword = "correct horse: battery@staple"

func newPool(t *testing.T, dir string, where store.Config) *pool {
	t.Helper()
	w, records := openWorldOn(t, dir, where)
	p := &pool{world: w, records: records, gateway: w.gateway()}
	p.device = ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(w.subscriber(1, 1000)))).Device
	return p
}

// elsewhere makes another gateway, in a region of its own.
func (p *pool) elsewhere(code string) control.Gateway {
	p.t.Helper()
	if _, _, err := p.CreateRegion(p.t.Context(), control.RegionFields{Code: &code}, control.Once{}); err != nil {
		p.t.Fatal(err)
	}
	return p.another(code)
}

func (p *pool) another(region string) control.Gateway {
	p.t.Helper()
	gateway, _, _, err := p.CreateGateway(p.t.Context(), control.NewGateway{Name: "g", Region: region}, control.Once{})
	if err != nil {
		p.t.Fatal(err)
	}
	return gateway
}

// server makes a server in a region.
func (p *pool) server(region string, f control.OutlineFields) control.OutlineServer {
	p.t.Helper()
	n := p.made.Add(1)
	link := sslink.Link{
		Host: fmt.Sprintf("ss%d.example", n), Port: 443, Cipher: sslink.AES256GCM, Password: fmt.Sprint(poolPassword, n), Prefix: []byte{0x16, 3, 1}, Outline: true,
	}
	f.Region, f.AccessKey = &region, new(link.Reveal())
	server, _, err := p.CreateOutlineServer(p.t.Context(), f, control.Once{})
	if err != nil {
		p.t.Fatal(err)
	}
	return server
}

func (p *pool) change(server control.OutlineServer, f control.OutlineFields) {
	p.t.Helper()
	ok[control.OutlineServer](p.t)(p.UpdateOutlineServer(p.t.Context(), server.ID, f))
}

// session begins a session.
func (p *pool) session() string {
	p.t.Helper()
	id := hex.EncodeToString(fmt.Appendf(nil, "session %08d", p.made.Add(1)))
	decided := ok[control.Decision](p.t)(p.Decide(p.t.Context(), p.gateway, control.SessionRequest{
		SessionID: id, DeviceID: p.device.ID, KeyThumbprint: p.device.Thumbprint(), Generation: 1, BootID: "b",
	}))
	if decided.Reason != "" {
		p.t.Fatalf("the session is refused: %s", decided.Reason)
	}
	return id
}

func (p *pool) assign(session string) (control.Exit, error) {
	return p.AssignOutline(p.t.Context(), p.gateway, control.ExitRequest{SessionID: session})
}

func (p *pool) fail(session, server string) control.Exit {
	p.t.Helper()
	return ok[control.Exit](p.t)(p.AssignOutline(p.t.Context(), p.gateway, control.ExitRequest{SessionID: session, Failed: server}))
}

// want fails the test unless the exit is through a server and came to be so.
func (p *pool) want(what string, exit control.Exit, server string, result control.ExitResult) {
	p.t.Helper()
	if exit.ServerID != server || exit.Result != result {
		p.t.Errorf("%s: server %s, %s; want %s, %s", what, exit.ServerID, exit.Result, server, result)
	}
}

func (p *pool) report(gateway control.Gateway, failure control.OutlineFailure, servers ...string) []control.HealthChange {
	p.t.Helper()
	var results []control.OutlineResult
	for _, id := range servers {
		results = append(results, control.OutlineResult{ServerID: id, Failure: failure, Latency: 5 * time.Millisecond})
	}
	return ok[[]control.HealthChange](p.t)(p.ReportOutline(p.t.Context(), gateway, results))
}

func (p *pool) state(server string) control.OutlineState {
	p.t.Helper()
	return ok[control.OutlineServer](p.t)(p.OutlineServer(p.t.Context(), server)).State(p.now())
}

// onBothPools runs a test on each engine.
func onBothPools(t *testing.T, test func(p *pool)) {
	t.Helper()
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		test(newPool(t, dir, where))
	})
}

func TestASessionKeepsItsOutlineServerUntilItFailsOnBothEngines(t *testing.T) {
	onBothPools(t, func(p *pool) {
		t := p.t
		session := p.session()
		_, err := p.assign(session)
		refused(t, err, reason.NoOutlineNodesAvailable)

		first := p.server("local", control.OutlineFields{Managed: new(true)})
		exit := ok[control.Exit](t)(p.assign(session))
		want := control.Exit{Result: control.ExitAssigned, OutlineAccess: control.OutlineAccess{
			ServerID: first.ID, Region: "local", Host: first.Host, Port: 443, Cipher: sslink.AES256GCM, Password: poolPassword + "2",
			Prefix: []byte{0x16, 3, 1}, Managed: true, Generation: 1,
		}}
		if diff := cmp.Diff(want, exit); diff != "" {
			t.Errorf("unexpected exit (-want +got):\n%s", diff)
		}
		second := p.server("local", control.OutlineFields{Priority: new(0), Weight: new(1000)})
		p.want("asked again", ok[control.Exit](t)(p.assign(session)), first.ID, control.ExitKept)

		// A failure leads to another one, and the next within 30 s to nothing.
		p.want("after a failure", p.fail(session, first.ID), second.ID, control.ExitSwitched)
		p.want("the same failure, told again", p.fail(session, first.ID), second.ID, control.ExitKept)
		p.pass(control.OutlineSwitchPause - time.Second)
		exit = p.fail(session, second.ID)
		p.want("a failure within 30 s", exit, second.ID, control.ExitKept)
		if exit.RetryAfter != time.Second {
			t.Errorf("to be told again after %v, want 1 s", exit.RetryAfter)
		}
		p.pass(time.Second)
		third := p.server("local", control.OutlineFields{Priority: new(9)})
		p.want("a failure after 30 s does not lead back", p.fail(session, second.ID), third.ID, control.ExitSwitched)
		p.pass(control.OutlineSwitchPause)

		// Without another server, the one that failed is better than nothing.
		p.change(first, control.OutlineFields{Disabled: new(true)})
		p.change(second, control.OutlineFields{Weight: new(0)})
		exit = p.fail(session, third.ID)
		p.want("no other one", exit, third.ID, control.ExitKept)
		if exit.RetryAfter == 0 {
			t.Error("it may be told again at once")
		}

		// What must not be used any more is left at once.
		p.change(second, control.OutlineFields{Weight: new(1)})
		p.change(third, control.OutlineFields{Disabled: new(true)})
		p.want("disabled", ok[control.Exit](t)(p.assign(session)), second.ID, control.ExitSwitched)
		if err := p.DeleteOutlineServer(t.Context(), second.ID); err != nil {
			t.Fatal(err)
		}
		_, err = p.assign(session)
		refused(t, err, reason.NoOutlineNodesAvailable)
		p.change(first, control.OutlineFields{Disabled: new(false)})
		p.want("deleted", ok[control.Exit](t)(p.assign(session)), first.ID, control.ExitSwitched)

		// It is the session's own.
		_, err = p.AssignOutline(t.Context(), p.another("local"), control.ExitRequest{SessionID: session})
		refused(t, err, reason.SessionUnknown)
		_, err = p.assign(strings.Repeat("0", 32))
		refused(t, err, reason.SessionUnknown)
		if err := p.EndSessions(t.Context(), p.gateway, []control.SessionEnd{{ID: session, Reason: "x"}}); err != nil {
			t.Fatal(err)
		}
		_, err = p.assign(session)
		refused(t, err, reason.SessionUnknown)
	})
}

func TestAnOutlineServersPlaceIsFreeWhenASessionEndsOrLeavesItOnBothEngines(t *testing.T) {
	onBothPools(t, func(p *pool) {
		t := p.t
		server := p.server("local", control.OutlineFields{Capacity: new(1)})
		taken := func() int {
			return ok[control.OutlineServer](t)(p.OutlineServer(t.Context(), server.ID)).Sessions
		}
		holder, waiting := p.session(), p.session()
		next := func(what string, free func() error) {
			t.Helper()
			p.want(what, ok[control.Exit](t)(p.assign(holder)), server.ID, control.ExitAssigned)
			_, err := p.assign(waiting)
			refused(t, err, reason.NoOutlineNodesAvailable)
			if err := free(); err != nil {
				t.Fatal(err)
			}
			if n := taken(); n != 0 {
				t.Errorf("%s: %d places are taken", what, n)
			}
			holder, waiting = p.session(), p.session()
		}
		next("released", func() error { return p.ReleaseOutline(t.Context(), p.gateway, holder) })
		next("ended", func() error {
			return p.EndSessions(t.Context(), p.gateway, []control.SessionEnd{{ID: holder, Reason: "x"}})
		})
		next("lost", func() error {
			// The service had worked before: gateways had time to be heard.
			_, err := p.workOn(2 * time.Hour)
			return err
		})
		next("restarted", func() error {
			_, err := p.Heartbeat(t.Context(), p.gateway, control.Lease{BootID: "another"})
			return err
		})
	})
}

func TestRegionsAndRanksDecideWhichOutlineServerOnBothEngines(t *testing.T) {
	onBothPools(t, func(p *pool) {
		t := p.t
		abroad := p.elsewhere("abroad")
		foreign := p.server("abroad", control.OutlineFields{})
		session := p.session()
		_, err := p.assign(session)
		refused(t, err, reason.NoOutlineNodesAvailable)
		p.change(foreign, control.OutlineFields{Fallback: new(true)})
		p.want("another region's", ok[control.Exit](t)(p.assign(session)), foreign.ID, control.ExitAssigned)

		last := p.server("local", control.OutlineFields{Priority: new(7)})
		p.want("its own region comes first", ok[control.Exit](t)(p.assign(p.session())), last.ID, control.ExitAssigned)
		p.want("but nobody is moved for that", ok[control.Exit](t)(p.assign(session)), foreign.ID, control.ExitKept)
		best := p.server("local", control.OutlineFields{Priority: new(3), Capacity: new(1)})
		p.want("by priority", ok[control.Exit](t)(p.assign(p.session())), best.ID, control.ExitAssigned)
		p.want("the next when it is full", ok[control.Exit](t)(p.assign(p.session())), last.ID, control.ExitAssigned)
		known := p.server("local", control.OutlineFields{Priority: new(7), Weight: new(1)})
		for range 2 {
			p.report(p.gateway, "", known.ID)
		}
		p.want("what is known to work", ok[control.Exit](t)(p.assign(p.session())), known.ID, control.ExitAssigned)
		exit := ok[control.Exit](t)(p.AssignOutline(t.Context(), p.gateway, control.ExitRequest{SessionID: p.session(), Region: "abroad"}))
		p.want("a region that was asked for", exit, foreign.ID, control.ExitAssigned)

		// Gateways probe what their sessions may get.
		probed := func(g control.Gateway) []string {
			var ids []string
			for _, s := range ok[[]control.OutlineAccess](t)(p.ProbedServers(t.Context(), g)) {
				ids = append(ids, s.ServerID)
				if !strings.HasPrefix(s.Password, poolPassword) {
					t.Error("a server is to be probed without its password")
				}
			}
			return ids
		}
		if diff := cmp.Diff([]string{best.ID, last.ID, known.ID, foreign.ID}, probed(p.gateway)); diff != "" {
			t.Errorf("to probe (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{foreign.ID}, probed(abroad)); diff != "" {
			t.Errorf("to probe abroad (-want +got):\n%s", diff)
		}
	})
}

func TestWeightsAreSharesAndADeviceStaysWithItsServer(t *testing.T) {
	dir := t.TempDir()
	p := newPool(t, dir, store.Config{Path: dir + "/x.db"})
	servers := map[string]int{} // weight by id
	for _, weight := range []int{0, 50, 100, 250} {
		servers[p.server("local", control.OutlineFields{Weight: &weight}).ID] = weight
	}
	first := ok[control.Exit](t)(p.assign(p.session()))
	for range 5 {
		p.want("another session of the device", ok[control.Exit](t)(p.assign(p.session())), first.ServerID, control.ExitAssigned)
	}
	const devices = 400
	user := p.subscriber(devices, devices)
	got := map[int]int{}
	for n := range uint32(devices) {
		p.device = ok[control.Enrolled](t)(p.enrol(testKey(1000+n), p.invite(user))).Device
		got[servers[ok[control.Exit](t)(p.assign(p.session())).ServerID]]++
	}
	// Shares of 1/8, 1/4 and 5/8; four standard deviations are at most 39.
	for weight, want := range map[int]int{0: 0, 50: 50, 100: 100, 250: 250} {
		if n := got[weight]; n < want-39 || n > want+39 || weight == 0 && n > 0 {
			t.Errorf("weight %d has %d of %d sessions, want about %d", weight, n, devices, want)
		}
	}
}

func TestAnOutlineServersHealthNeedsMoreThanOneWordOnBothEngines(t *testing.T) {
	onBothPools(t, func(p *pool) {
		t := p.t
		one, two, three := p.gateway, p.another("local"), p.another("local")
		server := p.server("local", control.OutlineFields{})
		id := server.ID
		is := func(what string, want control.OutlineState) {
			t.Helper()
			if got := p.state(id); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		is("new", control.OutlineUnknown)
		p.report(one, "", id)
		is("one good result", control.OutlineUnknown)
		if changes := p.report(one, "", id); len(changes) != 1 || changes[0] != (control.HealthChange{ServerID: id, State: control.OutlineUp}) {
			t.Errorf("the second good result changes %v", changes)
		}
		is("two of the only gateway", control.OutlineUp)
		p.report(two, "", id)
		p.report(three, "", id)
		since := *ok[control.OutlineServer](t)(p.OutlineServer(t.Context(), id)).Health.Since

		p.pass(control.OutlineProbeInterval)
		for range 3 {
			p.report(one, control.OutlineReset, id)
		}
		is("one gateway of three has trouble", control.OutlineUp)
		for range 2 {
			p.report(two, control.OutlineTimeout, id)
		}
		is("and another has a little", control.OutlineUp)
		p.report(two, "", id)
		for range 2 {
			p.report(two, control.OutlineTimeout, id)
		}
		is("which a good result ended", control.OutlineUp)
		if got := *ok[control.OutlineServer](t)(p.OutlineServer(t.Context(), id)).Health.Since; !got.Equal(since) {
			t.Errorf("up since %v, want %v", got, since)
		}
		session := p.session()
		ok[control.Exit](t)(p.assign(session))
		before := ok[control.EventLog](t)(p.Events(t.Context(), 0, 500)).Latest
		p.report(two, control.OutlineConnect, id)
		is("two of three say so", control.OutlineDown)
		log := ok[control.EventLog](t)(p.Events(t.Context(), before, 10))
		if len(log.Events) != 1 || log.Events[0].Kind != control.EventOutlineChanged || log.Events[0].OutlineServerID != id || !log.Events[0].All {
			t.Errorf("gateways are told %+v", log.Events)
		}
		_, err := p.assign(session)
		refused(t, err, reason.NoOutlineNodesAvailable)

		p.report(one, "", id)
		p.report(two, "", id)
		is("one good result each", control.OutlineDown)
		p.report(one, "", id)
		is("two of one gateway in three", control.OutlineDown)
		p.report(two, "", id)
		is("two of two gateways", control.OutlineUp)
		p.want("up again", ok[control.Exit](t)(p.assign(session)), id, control.ExitKept)

		// What was seen long ago does not count, for a server nor against it.
		for range 3 {
			p.report(one, control.OutlineReset, id)
			p.report(two, control.OutlineReset, id)
		}
		is("down", control.OutlineDown)
		p.pass(control.OutlineResultTTL)
		is("at the end of its time", control.OutlineDown)
		p.pass(time.Microsecond)
		is("after its time", control.OutlineUnknown)
		p.want("it may be tried", ok[control.Exit](t)(p.assign(session)), id, control.ExitKept)
		p.report(one, control.OutlineReset, id)
		is("a bad result after a long pause", control.OutlineUnknown)
		summary := ok[control.OutlineSummary](t)(p.OutlineSummary(t.Context()))
		if want := (control.OutlineSummary{Servers: map[control.OutlineState]int{control.OutlineUnknown: 1}, Sessions: 1, Capacity: 1000}); !cmp.Equal(want, summary) {
			t.Errorf("summary %+v, want %+v", summary, want)
		}

		// The last of several results counts, and who is gone is passed over.
		ok[[]control.HealthChange](t)(p.ReportOutline(t.Context(), one, []control.OutlineResult{
			{ServerID: id, Failure: control.OutlineReset}, {ServerID: one.ID}, {ServerID: id},
		}))
		probes := ok[[]control.OutlineProbe](t)(p.OutlineProbes(t.Context(), id))
		if len(probes) != 1 || probes[0].Streak != 1 || probes[0].Failure != "" {
			t.Errorf("seen: %+v, want one good result", probes)
		}
		p.change(server, control.OutlineFields{Disabled: new(true)})
		is("disabled", control.OutlineDisabled)
		if changes := p.report(one, "", id); len(changes) != 1 || changes[0].State != control.OutlineUp {
			t.Errorf("a disabled one is probed no more: %v", changes)
		}
		is("disabled and well", control.OutlineDisabled)
	})
}

// Two gateways are of one mind, and say the decisive word at the same time: each
// hears the other, or the server would stay as it was.
func TestWhatGatewaysSayAtTheSameTimeIsHeardOnBothEngines(t *testing.T) {
	onBothPools(t, func(p *pool) {
		t := p.t
		servers := make([]string, 4)
		for i := range servers {
			servers[i] = p.server("local", control.OutlineFields{}).ID
		}
		gateways := []control.Gateway{p.another("local"), p.another("local")}
		for round := range 8 {
			failure, want := control.OutlineConnect, control.OutlineDown
			if round%2 == 1 {
				failure, want = "", control.OutlineUp
			}
			for range 3 {
				var group sync.WaitGroup
				for n, gateway := range gateways {
					group.Go(func() {
						mine := slices.Clone(servers)
						if n == 1 {
							slices.Reverse(mine) // which must not lead to a deadlock
						}
						p.report(gateway, failure, mine...)
					})
				}
				group.Wait()
			}
			for _, id := range servers {
				if got := p.state(id); got != want {
					t.Errorf("round %d: a server is %s, want %s", round, got, want)
				}
			}
		}
	})
}

func TestNoOutlineServerIsEverOverItsCapacityOnBothEngines(t *testing.T) {
	onBothPools(t, func(p *pool) {
		t := p.t
		capacity := map[string]int{}
		for _, n := range []int{1, 3, 7} {
			capacity[p.server("local", control.OutlineFields{Capacity: &n}).ID] = n
		}
		sessions := make([]string, 64)
		for i := range sessions {
			sessions[i] = p.session()
		}
		var taken sync.Map // server by session
		n, failed := atOnce(func(caller uint32) error {
			exit, err := p.assign(sessions[caller])
			if err == nil {
				taken.Store(sessions[caller], exit.ServerID)
			}
			return err
		})
		if n != 11 {
			t.Errorf("%d of 64 have a server, there are 11 places", n)
		}
		for _, err := range failed {
			refused(t, err, reason.NoOutlineNodesAvailable)
		}
		got := map[string]int{}
		taken.Range(func(_, server any) bool { got[server.(string)]++; return true })
		if !maps.Equal(capacity, got) {
			t.Errorf("places taken: %v, want %v", got, capacity)
		}

		// While sessions report failures, leave and come back.
		_, failed = atOnce(func(caller uint32) error {
			for range 3 {
				exit, err := p.assign(sessions[caller])
				if err == nil {
					_, err = p.AssignOutline(t.Context(), p.gateway, control.ExitRequest{SessionID: sessions[caller], Failed: exit.ServerID})
				}
				if err == nil {
					servers, listed := p.OutlineServers(t.Context(), control.OutlineFilter{}, control.Page{Limit: 10})
					for _, s := range servers {
						if s.Sessions > s.Capacity {
							t.Errorf("%d sessions have a server for %d", s.Sessions, s.Capacity)
						}
					}
					err = errors.Join(listed, p.ReleaseOutline(t.Context(), p.gateway, sessions[caller]))
				}
				if refusal, is := errors.AsType[*control.RefusedError](err); err != nil && (!is || refusal.Reason != reason.NoOutlineNodesAvailable) {
					return err
				}
			}
			return nil
		})
		for _, err := range failed {
			t.Errorf("refused with %v", err)
		}
		if summary := ok[control.OutlineSummary](t)(p.OutlineSummary(t.Context())); summary.Sessions != 0 {
			t.Errorf("%d places are taken by nobody", summary.Sessions)
		}
	})
}

func TestAccessKeysAreSealedAgainAndReplacedOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		p := newPool(t, dir, where)
		server, session := p.server("local", control.OutlineFields{}), p.session()
		before := ok[control.Exit](t)(p.assign(session))
		if !strings.HasPrefix(before.Password, poolPassword) {
			t.Errorf("the password is %q", before.Password)
		}
		for _, v := range sealedValues(t, p.records) {
			if strings.Contains(string(v.Sealed), "battery") {
				t.Errorf("%s/%s holds the password as it is", v.Table, v.Row)
			}
		}
		keys := keysIn(t, dir, false)
		added := ok[string](t)(keys.Add())
		ok[int](t)(control.Reseal(t.Context(), p.records, keys, added))
		ok[[]string](t)(keys.Retire(added))
		again := ok[*control.Authority](t)(p.over(p.records, keysIn(t, dir, false)))
		after := ok[control.Exit](t)(again.AssignOutline(t.Context(), p.gateway, control.ExitRequest{SessionID: session}))
		if before.Result = control.ExitKept; !cmp.Equal(before, after) {
			t.Errorf("after a rotation of the sealing key: %s", cmp.Diff(before, after))
		}

		seen := ok[control.EventLog](t)(p.Events(t.Context(), 0, 500)).Latest
		ok[control.OutlineServer](t)(again.UpdateOutlineServer(t.Context(), server.ID, control.OutlineFields{
			AccessKey: new("ss://aes-128-gcm:another@[2001:db8::1]:8443"),
		}))
		exit := ok[control.Exit](t)(again.AssignOutline(t.Context(), p.gateway, control.ExitRequest{SessionID: session}))
		want := control.Exit{Result: control.ExitKept, OutlineAccess: control.OutlineAccess{
			ServerID: server.ID, Region: "local", Host: "2001:db8::1", Port: 8443, Cipher: sslink.AES128GCM, Password: "another", Generation: 2,
		}}
		if diff := cmp.Diff(want, exit); diff != "" {
			t.Errorf("with another key (-want +got):\n%s", diff)
		}
		if log := ok[control.EventLog](t)(p.Events(t.Context(), seen, 10)); len(log.Events) != 1 || log.Events[0].Kind != control.EventOutlineChanged {
			t.Errorf("gateways are told %+v of another key", log.Events)
		}
		if n := len(sealedValues(t, p.records)); n != 5 { // signing key, nonce key, audit key, knock key, one access key
			t.Errorf("there are %d sealed secrets, want 5", n)
		}
		if got := ok[control.OutlineServer](t)(p.OutlineServer(t.Context(), server.ID)); got.Name != server.Name {
			t.Errorf("it is called %q with another key, was %q", got.Name, server.Name)
		}
	})
}

func TestMistakesAboutAnOutlineServerAreAllToldWithoutItsKey(t *testing.T) {
	dir := t.TempDir()
	p := newPool(t, dir, store.Config{Path: dir + "/x.db"})
	_, _, err := p.CreateOutlineServer(t.Context(), control.OutlineFields{
		Region: new("local"), AccessKey: new("ss://rc4-md5:hunter2@x:1"), Name: new(""), Weight: new(-1), Priority: new(1001), Capacity: new(0),
	}, control.Once{})
	invalid, is := errors.AsType[*control.InvalidError](err)
	if !is {
		t.Fatalf("%v, want what is wrong", err)
	}
	var fields []string
	for _, f := range invalid.Fields {
		fields = append(fields, f.Field)
	}
	if diff := cmp.Diff([]string{"access_key", "name", "weight", "priority", "capacity"}, fields); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error repeats the key: %v", err)
	}
	_, _, err = p.CreateOutlineServer(t.Context(), control.OutlineFields{Region: new("mars"), AccessKey: new("ss://aes-256-gcm:x@x.example:1")}, control.Once{})
	if invalid, is = errors.AsType[*control.InvalidError](err); !is || invalid.Fields[0].Field != "region" {
		t.Errorf("an unknown region: %v", err)
	}
	for link, want := range map[string]string{
		"ss://aes-256-gcm:x@x.example:1#Pool%201":                        "Pool 1",
		"ss://aes-256-gcm:x@x.example:2":                                 "x.example:2",
		"ss://aes-256-gcm:x@x.example:3#" + strings.Repeat("a", 101):     "x.example:3",
		"ss://aes-256-gcm:x@" + strings.Repeat("abc.", 50) + "example:4": strings.Repeat("abc.", 25),
	} {
		made, _, err := p.CreateOutlineServer(t.Context(), control.OutlineFields{Region: new("local"), AccessKey: &link}, control.Once{})
		if err != nil || made.Name != want {
			t.Errorf("it is called %q, %v; want %q", made.Name, err, want)
		}
	}
}
