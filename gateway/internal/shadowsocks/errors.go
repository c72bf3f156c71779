package shadowsocks

import "errors"

// What a connection can end with, beside the errors of the network and io.EOF.
var (
	// ErrNoAnswer says that the server closed without a byte. It does so when
	// the target could not be had, when the target closed without a byte, and
	// some servers when they do not know the key.
	ErrNoAnswer = errors.New("shadowsocks: the server closed without an answer")
	// ErrCut says that the server closed in the middle of its answer: behind the
	// salt, or in a chunk.
	ErrCut = errors.New("shadowsocks: the answer was cut off")
	// ErrTag says that bytes are not what somebody with the key sent: another
	// password or cipher, no Shadowsocks server, or damage on the way.
	ErrTag = errors.New("shadowsocks: the answer is not under this key")
	// ErrReplay says that a salt came that was used before.
	ErrReplay = errors.New("shadowsocks: the answer repeats an earlier salt")
	// ErrFormat says that something under the right key breaks the rules.
	ErrFormat = errors.New("shadowsocks: the answer breaks the rules")
)
