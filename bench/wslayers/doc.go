// Package wslayers holds the benchmark that the WebSocket layer was chosen by
// (docs/adr/0006-websocket-by-frame-functions.md). It has only tests: no program
// links the libraries that it compares.
//
// Both ends are in one process and speak TLS 1.3 over a real TCP connection on
// loopback; one end sends messages, the other checks and counts them. Down is the
// gateway's direction, unmasked; up is the client's, masked. The contenders take
// turns when the whole is run several times:
//
//	go test -c -o wslayers.test ./bench/wslayers
//	for i in 1 2 3 4 5 6 7; do ./wslayers.test -test.run='^$' -test.bench=. -test.benchtime=0.3s; done >wslayers.txt
//	benchstat -row /way,/size,/layer wslayers.txt
//
// MB/s are millions of bytes of payload. cpu-s/GiB is the processor time of the
// whole process, both ends and the garbage collector, in user mode and in the
// kernel, for a GiB of payload. allocs/msg counts both ends, too.
package wslayers
