package nodes

import (
	"container/list"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/internal/ticket"
)

const (
	memoryFile = "outage.sealed"
	// knownFor is how long a device is known that has no session.
	knownFor = 24 * time.Hour
	// maxKnown bounds the devices that are known. The one that was not seen for
	// longest is forgotten.
	maxKnown = 32_768
	// saveInterval is how old the file may be, except for what takes rights away: that
	// is saved at once.
	saveInterval = time.Minute
	// MaxGrace is the longest time that a gateway stands in for its control plane.
	MaxGrace = 24 * time.Hour
)

// acquaintance is a device that the control plane has allowed to this gateway.
type acquaintance struct {
	Device     uuid.UUID `json:"device"`
	Thumbprint string    `json:"thumbprint"`
	Generation int64     `json:"generation"`
	Seen       time.Time `json:"seen"`
	Last       Decision  `json:"last"`
}

// told is what the control plane says to all devices of the gateway.
type told struct {
	JWKS  ticket.JWKS `json:"jwks"`
	Knock Knock       `json:"knock"`
	At    time.Time   `json:"at"`
}

// remembered is the memory as the file has it.
type remembered struct {
	Heard   time.Time      `json:"heard"`
	Events  string         `json:"events"` // the version up to which events were acted on
	Told    told           `json:"told"`
	Devices []acquaintance `json:"devices"` // the one that was seen last is the last
}

// memory is what the gateway goes by while the control plane is away. It names whom
// the control plane has allowed, and not who was revoked: what gets lost of it keeps
// devices out, and lets nobody in.
type memory struct {
	now  func() time.Time
	file *sealedFile // nil: nothing is kept on disk
	// urgent has an item when something must not wait for the next save.
	urgent chan struct{}

	mu      sync.Mutex // guards the following fields
	heard   time.Time  // when the control plane has answered last; zero: never
	events  string
	told    told
	devices map[[16]byte]*list.Element // of order
	order   *list.List                 // of *acquaintance; the one that was seen last is the last
	changed bool
}

func newMemory(now func() time.Time, file *sealedFile) *memory {
	return &memory{now: now, file: file, urgent: make(chan struct{}, 1), devices: make(map[[16]byte]*list.Element), order: list.New()}
}

// load takes up what the last process has left. What is too old is left out.
func (m *memory) load() error {
	if m.file == nil {
		return nil
	}
	var left remembered
	if found, err := m.file.load(&left); !found || err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard, m.events = left.Heard, left.Events
	if age := m.now().Sub(left.Told.At); age >= 0 && age < knownFor && left.Told.Knock.validate() == nil {
		m.told = left.Told
	}
	for _, device := range left.Devices[max(0, len(left.Devices)-maxKnown):] {
		m.devices[device.Device] = m.order.PushBack(&device)
	}
	return nil
}

// answered notes that the control plane has just answered.
func (m *memory) answered() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard, m.changed = m.now(), true
}

// lastHeard is when the control plane has answered last; zero: never.
func (m *memory) lastHeard() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard
}

// tell notes what the control plane says.
func (m *memory) tell(t told) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told, m.changed = t, true
}

// lastTold is what the control plane has said last.
func (m *memory) lastTold() told {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told
}

// acted notes up to which version events were acted on.
func (m *memory) acted(version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events, m.changed = version, true
}

// lastEvent is the version up to which events were acted on; empty: none is known.
func (m *memory) lastEvent() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.events
}

// saw notes that the control plane has allowed a device.
func (m *memory) saw(q Question, d Decision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(m.devices[q.Device])
	if len(m.devices) >= maxKnown {
		m.drop(m.order.Front())
	}
	m.devices[q.Device] = m.order.PushBack(&acquaintance{
		Device: q.Device, Thumbprint: q.Thumbprint, Generation: q.Generation, Seen: m.now(), Last: d,
	})
	m.changed = true
}

// see notes that devices that are known are here at this moment.
func (m *memory) see(devices [][16]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, device := range devices {
		if at := m.devices[device]; at != nil {
			at.Value.(*acquaintance).Seen = m.now() //nolint:errcheck // the list has no others
			m.order.MoveToBack(at)
			m.changed = true
		}
	}
}

// drop forgets a device. Called with mu held.
func (m *memory) drop(at *list.Element) {
	if at == nil {
		return
	}
	delete(m.devices, m.order.Remove(at).(*acquaintance).Device) //nolint:errcheck // the list has no others
	m.changed = true
}

// forget forgets those devices of which it is true, soon also on disk.
func (m *memory) forget(those func(acquaintance) bool) {
	m.mu.Lock()
	before := len(m.devices)
	for at := m.order.Front(); at != nil; {
		next := at.Next()
		if those(*at.Value.(*acquaintance)) { //nolint:errcheck // the list has no others
			m.drop(at)
		}
		at = next
	}
	fewer := len(m.devices) < before
	m.mu.Unlock()
	if fewer {
		m.hurry()
	}
}

// forgetDevice is forget for one.
func (m *memory) forgetDevice(device [16]byte) {
	m.mu.Lock()
	at := m.devices[device]
	m.drop(at)
	m.mu.Unlock()
	if at != nil {
		m.hurry()
	}
}

// hurry has the memory saved soon.
func (m *memory) hurry() {
	select {
	case m.urgent <- struct{}{}:
	default:
	}
}

// find returns what the control plane last decided about a device that is known with
// this key.
func (m *memory) find(q Question) (Decision, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.devices[q.Device]
	if at == nil {
		return Decision{}, false
	}
	known := at.Value.(*acquaintance) //nolint:errcheck // the list has no others
	if age := m.now().Sub(known.Seen); age < 0 || age > knownFor {
		return Decision{}, false
	}
	return known.Last, known.Thumbprint == q.Thumbprint && known.Generation == q.Generation
}

// save writes what has changed. A file that cannot be replaced is removed: it may let
// somebody in who was revoked since.
func (m *memory) save() error {
	m.mu.Lock()
	if m.file == nil || !m.changed {
		m.mu.Unlock()
		return nil
	}
	now := remembered{Heard: m.heard, Events: m.events, Told: m.told, Devices: make([]acquaintance, 0, len(m.devices))}
	for at := m.order.Front(); at != nil; at = at.Next() {
		known := *at.Value.(*acquaintance) //nolint:errcheck // the list has no others
		if m.now().Sub(known.Seen) <= knownFor {
			now.Devices = append(now.Devices, known)
		}
	}
	m.changed = false
	m.mu.Unlock()
	err := m.file.save(now)
	if err != nil {
		m.mu.Lock()
		m.changed = true
		m.mu.Unlock()
		err = errors.Join(err, removeFile(m.file.dir, m.file.name))
	}
	return err
}

// removeFile removes a file that need not be there.
func removeFile(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// keepMemory saves the memory until ctx ends, and once more then.
func (n *Node) keepMemory(ctx context.Context) {
	ticker := time.NewTicker(saveInterval)
	defer ticker.Stop()
	failing := false
	for going := true; going; {
		select {
		case <-n.memory.urgent:
		case <-ticker.C:
			n.memory.see(n.cfg.Live())
		case <-ctx.Done():
			going = false
		}
		switch err := errors.Join(n.memory.save(), n.admitted.save()); {
		case err != nil && !failing:
			n.cfg.Log.ErrorContext(ctx, "what an outage of the control plane needs is not saved", "error", err)
			failing = true
		case err == nil:
			failing = false
		}
	}
}
