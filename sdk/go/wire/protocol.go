package wire

import "time"

// SubProtocol is the value of Sec-WebSocket-Protocol that selects this version.
const SubProtocol = "httvps.v1"

// Limits fixed in version 1, in bytes unless said otherwise.
const (
	MaxMessage      = 65536     // one message, all its frames together
	MaxFramePayload = 16383     // payload of any frame
	MaxHello        = 8192      // payload of HELLO
	MaxToken        = 4096      // access token in HELLO
	MaxTLVBlock     = 8192      // any TLV block but OPEN's
	MaxOpenTLVs     = 512       // the ext block of OPEN
	MaxName         = 253       // name in an address
	MaxLabel        = 63        // one label of such a name
	MaxReason       = 128       // reason in CLOSE
	MaxAgent        = 64        // agent in HELLO
	MaxURLs         = 8         // fronts in READY, gateways in GOAWAY, a number
	MaxURL          = 500       // one of them
	MaxDatagram     = 16000     // datagram in DGRAM; a longer one is never sent, and dropped by its receiver
	MaxPadMessages  = 64        // messages of a padding policy, a number
	MaxPadSizes     = 16        // sizes of one, a number
	MinPadSize      = 64        // any of these
	MaxPadSize      = 16000     // likewise
	MaxPadSpread    = 4096      // spread of one
	MaxPadShare     = 100       // share of one, per cent
	FreePadding     = 131072    // PAD that a session may send whatever its payload
	MinPadHandshake = 600       // a frame of a handshake that is padded
	MaxPadHandshake = 1400      // likewise, unless it is long without
	MaxVarint       = 1<<53 - 1 // largest number, so that every language holds it exactly

	// DataPayload is how much a sender should put into one DATA or FIN, so that
	// WebSocket header, frame header and payload fit one TLS record.
	DataPayload = 16360

	// MaxHeader is the longest header of a frame: type, stream id, length.
	MaxHeader = 1 + 8 + 2

	// BindingSize is the size of the tls-exporter channel binding (RFC 9266).
	BindingSize = 32
)

// Times fixed in version 1.
const (
	HelloTimeout  = 10 * time.Second // from the 101 to the whole HELLO
	OpenedTimeout = 15 * time.Second // from OPEN to OPENED or RESET
	MinSilence    = 5 * time.Second  // the least that a gateway can ask for as Limits.Silence
	MaxDrain      = 10 * time.Minute // the longest that a gateway lets streams go on which goes away
	ResumeWindow  = time.Minute      // of a gateway that is not told another: Ready.ResumeWindow
)
