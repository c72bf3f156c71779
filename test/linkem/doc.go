// Package linkem is an emulated link between two network namespaces, for tests
// and benchmarks that need a slow, long, lossy or broken network and have only
// one machine. It really queues and drops IP packets, so that TCP's congestion
// control, UDP and everything above meet what they would meet outside.
//
// # Use
//
// In a test, New skips or fails where links cannot work, and closes the link at
// the end:
//
//	link := linkem.New(t, linkem.Config{Rate: 100e6, Delay: 50 * time.Millisecond})
//	listener, err := link.Server.Listen(ctx, "tcp", "198.51.100.1:443")
//	conn, err := link.Client.Dial(ctx, "tcp", "198.51.100.1:443")
//	server := link.Server.Command(ctx, "bin/httvps-gateway", "serve") // an *exec.Cmd
//	link.Cut()
//	link.Restore()
//	err = link.ChangeAddress(netip.MustParseAddr("203.0.113.7"))
//	lost := link.Stats(linkem.Down).DroppedQueue
//
// Other programs use Supported, Open and Close. Any number of links can be open
// at once; all have the same addresses and none sees another, or the machine.
//
// # How it works
//
// Both namespaces have a TUN device, and a goroutine on a thread of its own for
// each direction takes packets out of one and puts them into the other. When a
// packet enters, the time at which it has been sent follows from its size, the
// rate, and when the one before it has been; the delay later it is due. What
// would wait behind more than the queue holds is dropped at once (drop tail), and
// random loss strikes after sending. Times are computed, not slept, so a late
// wake-up makes some packets late and leaves the rate as it is.
//
// Namespaces are anonymous: descriptors hold them, and they are gone with the
// last of these, and with the sockets and processes inside, however the program
// ends. The network of the machine itself is never touched. In the namespaces,
// TCP may buffer 64 MiB per socket and direction, and no connection inherits what
// an earlier one has learned about the path. Config.CongestionControl works for
// every algorithm that the kernel has loaded, also those that
// net.ipv4.tcp_allowed_congestion_control keeps from others: it is set on the
// default routes. The settings of net.core are the machine's.
//
// # Requirements
//
// Linux, root, /dev/net/tun; nsenter (util-linux) for Command.
//
// # Precision and limits
//
// Command linkem-check measures these. On two processors of a virtual machine
// with a 6.18 kernel, while little else ran:
//
//   - Round trips of small packets on an idle link take 0.4 to 1 ms more than
//     twice the delay, of which 0.4 ms is on purpose (packets are moved every
//     200 µs at most).
//   - One TCP connection with cubic gets 96 % of 50, 100, 200 and 400 Mbit/s at
//     20 ms, 96.5 of 100 at 100 ms, and 193.1 of 200 at 300 ms after 10 s; 96.5 % is
//     all that headers leave. While others kept both processors busy it got 80 to
//     91 % at 20 ms. With bbr, 96.5 of 100 at 100 ms; at 300 ms 193 of 200, or about
//     180 over a time in which it probes the round trip and so nearly stops.
//   - Without a rate about 2 Gbit/s pass.
//   - A packet costs 60 ns in the emulator, and no allocation; moving packets in
//     and out of the kernel, where the receiver's TCP runs on the emulator's
//     account, takes 15 to 40 % of a processor at 200 Mbit/s.
//
// All this competes for processors with what is measured. When they are busy, or
// when the machine below a virtual machine is, packets come late: Stats.Late and
// Stats.MaxLate tell, and a measurement with many is worth little. Heavy loads
// belong in processes of their own, started with Command: inside of the
// emulator's process they also compete for GOMAXPROCS.
//
// A direction holds at most 256 MiB of packets, counted as full ones but for
// those of up to 128 bytes; what comes then is dropped as if the queue were full.
// Packets are never reordered, duplicated or damaged, and the delay does not
// vary.
package linkem
