package pace

import (
	"testing"
	"testing/synctest"
	"time"
)

// devices are some with so many streams each, at one uplink.
type devices struct {
	crowd
	streams []int
}

func startDevices(u *Uplink, streams []int, limit func(*Speeds) *Limit, move func(*mover)) *devices {
	d := &devices{streams: streams}
	for _, n := range streams {
		d.start(limit(u.NewSpeeds()), n, move)
	}
	return d
}

// during returns what each device moves in t.
func (d *devices) during(t time.Duration) []float64 {
	moved, of := d.crowd.during(t), make([]float64, len(d.streams))
	for i, n := range d.streams {
		of[i], moved = sum(moved[:n]), moved[n:]
	}
	return of
}

func up(s *Speeds) *Limit { return &s.Up }

func down(s *Speeds) *Limit { return &s.Down }

func TestDevicesShareTheUplinkWhateverTheNumberOfTheirStreams(t *testing.T) {
	for name, streams := range map[string][]int{
		"one stream each": {1, 1}, "one and fifty": {1, 50}, "seven and two hundred": {7, 200}, "many devices": {1, 2, 4, 8, 16, 32, 1, 1},
	} {
		for speed, bits := range map[string]int64{"a slow uplink": 10 * mbit, "a fast one": 1000 * mbit} {
			for way, limit := range map[string]func(*Speeds) *Limit{"up": up, "down": down} {
				t.Run(name+", "+speed+", "+way, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						move := (*mover).moveUp
						if way == "down" {
							move = (*mover).moveDown
						}
						d := startDevices(NewUplink(bits, bits), streams, limit, func(m *mover) { move(m, 1<<30) })
						moved := d.during(window)
						wantSpeed(t, moved, window, float64(bits))
						wantFair(t, moved)
						d.end()
					})
				})
			}
		}
	}
}

// A device with one stream is away for as long as it takes to write what its turn
// brought. One with many always has another that waits.
func TestADeviceThatComesBackFromWritingHasItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bits = 100 * mbit
		d := startDevices(NewUplink(bits, bits), []int{1, 50}, up, func(m *mover) {
			for {
				n := m.Take(1 << 20)
				if n == 0 {
					return
				}
				m.moved.Add(int64(n))
				<-time.After(8 * time.Millisecond)
			}
		})
		moved := d.during(window)
		wantSpeed(t, moved, window, bits)
		wantFair(t, moved)
		d.end()
	})
}

// A device with a speed of its own leaves what it may not use to the others, also in
// the middle of it all.
func TestADevicesOwnSpeedHoldsAtTheUplink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bits = 100 * mbit
		u := NewUplink(bits, bits)
		slow, fast := u.NewSpeeds(), u.NewSpeeds()
		slow.Set(time.Now(), 10*mbit, 10*mbit)
		d := &devices{streams: []int{3, 3}}
		d.start(&slow.Up, 3, func(m *mover) { m.moveUp(1 << 20) })
		d.start(&fast.Up, 3, func(m *mover) { m.moveUp(1 << 20) })
		moved := d.during(window)
		wantSpeed(t, moved[:1], window, 10*mbit)
		wantSpeed(t, moved[1:], window, 90*mbit)
		slow.Set(time.Now(), 0, 0)
		d.during(time.Second)
		moved = d.during(window)
		wantSpeed(t, moved, window, bits)
		wantFair(t, moved)
		d.end()
	})
}

func TestDatagramsAndStreamsShareTheUplink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bits = 20 * mbit
		u := NewUplink(bits, bits)
		d := &devices{streams: []int{10, 1}}
		d.start(&u.NewSpeeds().Down, 10, func(m *mover) { m.moveDown(1 << 20) })
		d.start(&u.NewSpeeds().Down, 1, func(m *mover) {
			for m.Pass(0) || !m.gone() { // 32 Mbit/s, if they all passed
				if m.Pass(1200) {
					m.moved.Add(1200)
				}
				<-time.After(300 * time.Microsecond)
			}
		})
		moved := d.during(window)
		wantSpeed(t, moved, window, bits)
		wantFair(t, moved)
		d.end()
	})
}

// gone reports whether the share was closed.
func (m *mover) gone() bool {
	m.limit.member.line.mu.Lock()
	defer m.limit.member.line.mu.Unlock()
	return m.seat.closed
}

// What was reserved and did not come goes back, and the end of a share ends its wait.
func TestWhatDoesNotMoveIsLeftToOthersAtTheUplink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bits = 10 * mbit
		u := NewUplink(bits, bits)
		d := &devices{streams: []int{20, 1}}
		d.start(&u.NewSpeeds().Down, 20, func(m *mover) { // targets that say a word now and then
			for {
				if m.Reserve() == 0 {
					return
				}
				m.Settle(1)
				m.moved.Add(1)
				<-time.After(50 * time.Millisecond)
			}
		})
		d.start(&u.NewSpeeds().Down, 1, func(m *mover) { m.moveDown(1 << 20) })
		moved := d.during(window)
		wantSpeed(t, moved[1:], window, bits)
		d.end() // nobody waits on
	})
	var none *Uplink
	if s := none.NewSpeeds(); s.Up.Limited() || s.Down.Limited() {
		t.Error("without an uplink there is a limit")
	}
	if s := NewUplink(0, 8000).NewSpeeds(); s.Up.Limited() || !s.Down.Limited() {
		t.Error("an uplink with one limit has another")
	}
}
