package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const vectorDir = "../../testvectors"

// hexBytes is the notation of the vectors: hex with spaces, and "00*16" for 16
// zero bytes.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) error {
	out := []byte{}
	for word := range strings.FieldsSeq(string(text)) {
		digits, times, repeated := strings.Cut(word, "*")
		b, err := hex.DecodeString(digits)
		if err != nil {
			return err
		}
		n := 1
		if repeated {
			if n, err = strconv.Atoi(times); err != nil {
				return err
			}
		}
		out = append(out, bytes.Repeat(b, n)...)
	}
	*h = out
	return nil
}

// outcome is what every vector has: a name, bytes, and the code of the error
// where there has to be one.
type outcome struct {
	Name  string   `json:"name"`
	Hex   hexBytes `json:"hex"`
	Error string   `json:"error"`
	Ends  string   `json:"ends"` // "stream", or nothing for the session
	// DecodeOnly marks bytes that are allowed and that this version does not
	// write.
	DecodeOnly bool `json:"decode_only"`
}

type varintVector struct {
	outcome
	Value uint64 `json:"value"`
}

type tlvVector struct {
	outcome
	Known   []uint64   `json:"known"`
	Limit   int        `json:"limit"`
	Entries []tlvEntry `json:"entries"`
}

type tlvEntry struct {
	Key   uint64   `json:"key"`
	Value hexBytes `json:"value"`
}

type addressJSON struct {
	Host string `json:"host"`
	Port uint16 `json:"port"`
}

type addressVector struct {
	outcome
	Address addressJSON `json:"address"`
}

type hostVector struct {
	outcome
	addressJSON
}

type frameVector struct {
	outcome
	Frame frameJSON `json:"frame"`
}

type messageVector struct {
	outcome
	Frames []frameJSON `json:"frames"`
}

type signingVector struct {
	outcome
	Seed         hexBytes `json:"seed"`
	Nonce        hexBytes `json:"nonce"`
	Host         string   `json:"host"`
	Exporter     hexBytes `json:"exporter"`
	RestSHA256   hexBytes `json:"rest_sha256"`
	SigningInput hexBytes `json:"signing_input"`
	Signature    hexBytes `json:"signature"`
}

// frameJSON is a frame in the vectors. Each type has some of the fields.
type frameJSON struct {
	Type         string            `json:"type"`
	Stream       uint64            `json:"stream"`
	Payload      hexBytes          `json:"payload"`
	Token        hexBytes          `json:"token"`
	Offset       uint64            `json:"offset"`
	Code         uint64            `json:"code"`
	Reason       string            `json:"reason"`
	Kind         byte              `json:"kind"`
	RecvWindow   uint64            `json:"recv_window"`
	Address      addressJSON       `json:"address"`
	Early        hexBytes          `json:"early"`
	Nonce        hexBytes          `json:"nonce"`
	Capabilities []uint64          `json:"capabilities"`
	Time         *uint64           `json:"time"`
	DeviceID     hexBytes          `json:"device_id"`
	Agent        string            `json:"agent"`
	AccessToken  string            `json:"access_token"`
	ClientNonce  hexBytes          `json:"client_nonce"`
	Signature    hexBytes          `json:"signature"`
	DeviceKey    hexBytes          `json:"device_key"`
	SessionID    hexBytes          `json:"session_id"`
	Limits       map[string]uint64 `json:"limits"`
	Deadline     uint64            `json:"deadline"`
	RetryAfter   uint64            `json:"retry_after_ms"`
}

func load[V any](tb testing.TB, file string) []V {
	tb.Helper()
	raw, err := os.ReadFile(filepath.Join(vectorDir, file))
	if err != nil {
		tb.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var vectors []V
	if err := dec.Decode(&vectors); err != nil {
		tb.Fatalf("%s: %v", file, err)
	}
	if len(vectors) == 0 {
		tb.Fatalf("%s has no vectors", file)
	}
	return vectors
}

var frameFiles = []string{"frames.json", "unknown.json", "open.json", "handshake.json"}

func loadFrames(tb testing.TB) []frameVector {
	tb.Helper()
	var all []frameVector
	for _, file := range frameFiles {
		all = append(all, load[frameVector](tb, file)...)
	}
	return all
}

// wantFault checks that err is what an invalid vector asks for.
func wantFault(t *testing.T, v outcome, err error) {
	t.Helper()
	var fault *Error
	if !errors.As(err, &fault) {
		t.Fatalf("error = %v, want an *Error with %s", err, v.Error)
	}
	if fault.Code.String() != v.Error {
		t.Errorf("code = %s (%s), want %s", fault.Code, fault.What, v.Error)
	}
	if want := v.Ends == "stream"; fault.StreamOnly != want {
		t.Errorf("StreamOnly = %t (%s), want %t", fault.StreamOnly, fault.What, want)
	}
}

func TestVarintVectors(t *testing.T) {
	for _, v := range load[varintVector](t, "varints.json") {
		t.Run(v.Name, func(t *testing.T) {
			got, err := parseVarint(v.Hex)
			if v.Error != "" {
				wantFault(t, v.outcome, err)
				return
			}
			if err != nil || got != v.Value {
				t.Errorf("parseVarint = %d, %v, want %d", got, err, v.Value)
			}
			if b := AppendVarint(nil, v.Value); !bytes.Equal(b, v.Hex) {
				t.Errorf("AppendVarint = %x, want %x", b, v.Hex)
			}
			if n := SizeVarint(v.Value); n != len(v.Hex) {
				t.Errorf("SizeVarint = %d, want %d", n, len(v.Hex))
			}
		})
	}
}

func TestTLVVectors(t *testing.T) {
	for _, v := range load[tlvVector](t, "tlvs.json") {
		t.Run(v.Name, func(t *testing.T) {
			limit := MaxTLVBlock
			if v.Limit != 0 {
				limit = v.Limit
			}
			r := readTLVs(v.Hex, limit, keys(v.Known...))
			got := []tlvEntry{}
			for r.next() {
				got = append(got, tlvEntry{r.key, r.value})
			}
			if v.Error != "" {
				wantFault(t, v.outcome, r.err)
				return
			}
			if r.err != nil {
				t.Fatal(r.err)
			}
			if diff := cmp.Diff(v.Entries, got); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAddressVectors(t *testing.T) {
	for _, v := range load[addressVector](t, "addresses.json") {
		t.Run(v.Name, func(t *testing.T) {
			got, err := ParseAddr(v.Hex)
			if v.Error != "" {
				wantFault(t, v.outcome, err)
				return
			}
			want := v.Address.addr()
			if err != nil || got != want {
				t.Fatalf("ParseAddr = %v, %v, want %v", got, err, want)
			}
			if b := AppendAddr(nil, want); !bytes.Equal(b, v.Hex) {
				t.Errorf("AppendAddr = %x, want %x", b, v.Hex)
			}
		})
	}
}

func TestHostVectors(t *testing.T) {
	for _, v := range load[hostVector](t, "hosts.json") {
		t.Run(v.Name, func(t *testing.T) {
			got, err := AddrFromHostPort(v.Host, v.Port)
			if v.Error != "" {
				v.Ends = "stream"
				wantFault(t, v.outcome, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if b := AppendAddr(nil, got); !bytes.Equal(b, v.Hex) {
				t.Errorf("on the wire %x, want %x", b, v.Hex)
			}
		})
	}
}

func TestFrameVectors(t *testing.T) {
	for _, v := range loadFrames(t) {
		t.Run(v.Name, func(t *testing.T) {
			f, rest, err := ConsumeFrame(v.Hex)
			var got frameJSON
			if err == nil {
				got, err = decode(f)
			}
			if v.Error != "" {
				wantFault(t, v.outcome, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(rest) != 0 {
				t.Errorf("%d bytes left over", len(rest))
			}
			if diff := cmp.Diff(v.Frame.normal(), got.normal()); diff != "" {
				t.Errorf("frame (-want +got):\n%s", diff)
			}
			if v.DecodeOnly {
				return
			}
			if b := encode(t, v.Frame); !bytes.Equal(b, v.Hex) {
				t.Errorf("encoded %x\nwant    %x", b, []byte(v.Hex))
			}
		})
	}
}

func TestMessageVectors(t *testing.T) {
	for _, v := range load[messageVector](t, "messages.json") {
		t.Run(v.Name, func(t *testing.T) {
			var got []frameJSON
			var fault error
			for f, err := range Frames(v.Hex) {
				var j frameJSON
				if err == nil {
					j, err = decode(f)
				}
				if err != nil {
					fault = err
					break
				}
				got = append(got, j.normal())
			}
			if v.Error != "" {
				wantFault(t, v.outcome, fault)
				return
			}
			if fault != nil {
				t.Fatal(fault)
			}
			var again []byte
			var want []frameJSON
			for _, j := range v.Frames {
				want = append(want, j.normal())
				again = append(again, encode(t, j)...)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("frames (-want +got):\n%s", diff)
			}
			if !bytes.Equal(again, v.Hex) {
				t.Errorf("encoded %x\nwant    %x", again, []byte(v.Hex))
			}
		})
	}
}

func TestSigningVectors(t *testing.T) {
	for _, v := range load[signingVector](t, "signing.json") {
		t.Run(v.Name, func(t *testing.T) {
			f, rest, err := ConsumeFrame(v.Hex)
			if err != nil || len(rest) != 0 {
				t.Fatalf("ConsumeFrame leaves %d bytes: %v", len(rest), err)
			}
			h, err := ParseHello(f.Payload)
			if err != nil {
				t.Fatal(err)
			}
			input := h.SigningInput([32]byte(v.Nonce), v.Host, v.Exporter)
			valid := ed25519.Verify(h.DeviceKey[:], input, h.Signature[:])
			if v.Error != "" {
				if valid {
					t.Error("the signature is taken for valid")
				}
				return
			}
			if !valid {
				t.Error("the signature is not taken for valid")
			}
			if !bytes.Equal(input, v.SigningInput) {
				t.Errorf("SigningInput = %x\nwant           %x", input, []byte(v.SigningInput))
			}
			if sum := v.SigningInput[14+32 : 14+64]; !bytes.Equal(sum, v.RestSHA256) {
				t.Errorf("the vector contradicts itself: rest_sha256 is %x, its input has %x", v.RestSHA256, sum)
			}
			key := ed25519.NewKeyFromSeed(v.Seed)
			if sig := ed25519.Sign(key, input); !bytes.Equal(sig, v.Signature) || !bytes.Equal(sig, h.Signature[:]) {
				t.Errorf("signature = %x, the vector says %x and the HELLO has %x", sig, v.Signature, h.Signature)
			}
			if v.DecodeOnly {
				return
			}
			fresh := fieldsOf(h)
			fresh.Signature = [64]byte{}
			if own := fresh.SigningInput([32]byte(v.Nonce), v.Host, v.Exporter); !bytes.Equal(own, input) {
				t.Errorf("SigningInput before sending = %x\nwant %x", own, input)
			}
			fresh.Signature = h.Signature
			if b := AppendHello(nil, fresh); !bytes.Equal(b, v.Hex) {
				t.Errorf("AppendHello = %x\nwant          %x", b, []byte(v.Hex))
			}
		})
	}
}

// TestVectorsRejectAtLeastAsMuchAsTheyAccept also keeps a file from going unread:
// one that no test loads is not in its list.
func TestVectorsRejectAtLeastAsMuchAsTheyAccept(t *testing.T) {
	read := []string{"varints.json", "tlvs.json", "addresses.json", "hosts.json", "messages.json", "signing.json"}
	unread := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(vectorDir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		unread[filepath.Base(file)] = true
	}
	for _, file := range append(read, frameFiles...) {
		delete(unread, file)
		raw, err := os.ReadFile(filepath.Join(vectorDir, file))
		if err != nil {
			t.Fatal(err)
		}
		var all []outcome
		if err := json.Unmarshal(raw, &all); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		names, invalid := map[string]bool{}, 0
		for _, v := range all {
			if names[v.Name] {
				t.Errorf("%s: two vectors are called %q", file, v.Name)
			}
			names[v.Name] = true
			if v.Error == "" {
				continue
			}
			invalid++
			if _, ok := ParseCode(v.Error); !ok {
				t.Errorf("%s: %q has the unknown error %q", file, v.Name, v.Error)
			}
		}
		if valid := len(all) - invalid; invalid < valid || valid == 0 {
			t.Errorf("%s: %d valid, %d invalid", file, valid, invalid)
		}
	}
	for file := range unread {
		t.Errorf("%s is read by no test", file)
	}
}

func (a addressJSON) addr() Addr {
	if ip, err := netip.ParseAddr(a.Host); err == nil {
		return Addr{IP: ip, Port: a.Port}
	}
	return Addr{Name: a.Host, Port: a.Port}
}

func jsonAddr(a Addr) addressJSON {
	if a.Name != "" {
		return addressJSON{a.Name, a.Port}
	}
	return addressJSON{a.IP.String(), a.Port}
}

// normal returns j with what is absent and what is empty made the same.
func (j frameJSON) normal() frameJSON {
	for _, b := range []*hexBytes{&j.Payload, &j.Early} {
		if len(*b) == 0 {
			*b = nil
		}
	}
	if len(j.Capabilities) == 0 {
		j.Capabilities = nil
	}
	return j
}

// decode reads the payload of f by its type.
func decode(f Frame) (j frameJSON, err error) {
	j = frameJSON{Type: f.Type.String(), Stream: f.Stream}
	switch f.Type {
	case TypePad, TypeData, TypeFin:
		j.Payload = f.Payload
	case TypePing, TypePong:
		token, e := ParsePing(f.Payload)
		j.Token, err = token[:], e
	case TypeCredit:
		j.Offset, err = ParseCredit(f.Payload)
	case TypeReset:
		code, e := ParseReset(f.Payload)
		j.Code, err = uint64(code), e
	case TypeStop:
		code, e := ParseStop(f.Payload)
		j.Code, err = uint64(code), e
	case TypeClose:
		c, e := ParseClose(f.Payload)
		j.Code, j.Reason, err = uint64(c.Code), c.Reason, e
	case TypeOpen:
		o, e := ParseOpen(f.Payload)
		err = e
		j.Kind, j.RecvWindow, j.Address, j.Early = byte(o.Kind), o.RecvWindow, jsonAddr(o.Target), o.Early
	case TypeOpened:
		o, e := ParseOpened(f.Payload)
		j.RecvWindow, err = o.RecvWindow, e
	case TypeChallenge:
		c, e := ParseChallenge(f.Payload)
		err = e
		j.Nonce, j.Capabilities, j.Time = c.Nonce[:], jsonCapabilities(c.Capabilities), jsonTime(c.Time)
	case TypeHello:
		h, e := ParseHello(f.Payload)
		err = e
		j.Capabilities, j.DeviceID, j.Agent = jsonCapabilities(h.Capabilities), h.DeviceID[:], h.Agent
		j.AccessToken, j.ClientNonce, j.Signature = h.AccessToken, h.ClientNonce[:], h.Signature[:]
		j.Time, j.DeviceKey = jsonTime(h.Time), h.DeviceKey[:]
	case TypeReady:
		r, e := ParseReady(f.Payload)
		err = e
		j.Capabilities, j.SessionID, j.Time = jsonCapabilities(r.Capabilities), r.SessionID[:], jsonTime(r.Time)
		j.Limits = map[string]uint64{
			"max_streams": r.Limits.MaxStreams, "max_udp": r.Limits.MaxUDP, "early_window": r.Limits.EarlyWindow,
			"open_burst": r.Limits.OpenBurst, "open_rate": r.Limits.OpenRate,
		}
		j.Deadline = millis(r.Deadline)
	case TypeReject:
		r, e := ParseReject(f.Payload)
		err = e
		j.Code, j.RetryAfter = uint64(r.Code), uint64(r.RetryAfter/time.Millisecond)
	default:
		j.Type, j.Payload = fmt.Sprintf("0x%02x", byte(f.Type)), f.Payload
	}
	return j, err
}

// encode writes the frame that j describes.
func encode(tb testing.TB, j frameJSON) []byte {
	tb.Helper()
	switch j.Type {
	case "PAD":
		return AppendFrame(nil, TypePad, 0, j.Payload)
	case "PING":
		return AppendPing(nil, [8]byte(j.Token))
	case "PONG":
		return AppendPong(nil, [8]byte(j.Token))
	case "DATA":
		return AppendData(nil, j.Stream, j.Payload)
	case "FIN":
		return AppendFin(nil, j.Stream, j.Payload)
	case "CREDIT":
		return AppendCredit(nil, j.Stream, j.Offset)
	case "RESET":
		return AppendReset(nil, j.Stream, Code(j.Code))
	case "STOP":
		return AppendStop(nil, j.Stream, Code(j.Code))
	case "CLOSE":
		return AppendClose(nil, Close{Code(j.Code), j.Reason})
	case "OPEN":
		return AppendOpen(nil, j.Stream, Open{Kind(j.Kind), j.RecvWindow, j.Address.addr(), j.Early})
	case "OPENED":
		return AppendOpened(nil, j.Stream, Opened{j.RecvWindow})
	case "CHALLENGE":
		return AppendChallenge(nil, Challenge{[32]byte(j.Nonce), wireCapabilities(j), wireTime(j.Time)})
	case "HELLO":
		return AppendHello(nil, Hello{
			Capabilities: wireCapabilities(j), DeviceID: [16]byte(j.DeviceID), Agent: j.Agent, AccessToken: j.AccessToken,
			ClientNonce: [32]byte(j.ClientNonce), Signature: [64]byte(j.Signature), Time: wireTime(j.Time),
			DeviceKey: [32]byte(j.DeviceKey),
		})
	case "READY":
		return AppendReady(nil, Ready{
			Capabilities: wireCapabilities(j), SessionID: [16]byte(j.SessionID), Time: wireTime(j.Time),
			Limits: Limits{
				MaxStreams: j.Limits["max_streams"], MaxUDP: j.Limits["max_udp"], EarlyWindow: j.Limits["early_window"],
				OpenBurst: j.Limits["open_burst"], OpenRate: j.Limits["open_rate"],
			},
			Deadline: time.UnixMilli(int64(j.Deadline)),
		})
	case "REJECT":
		return AppendReject(nil, Reject{Code(j.Code), time.Duration(j.RetryAfter) * time.Millisecond})
	default:
		number, err := strconv.ParseUint(j.Type, 0, 8)
		if err != nil {
			tb.Fatalf("frame of type %q: %v", j.Type, err)
		}
		return AppendFrame(nil, FrameType(number), j.Stream, j.Payload)
	}
}

func jsonCapabilities(s Capabilities) (list []uint64) {
	for c := range Capability(64) {
		if s.Has(c) {
			list = append(list, uint64(c))
		}
	}
	return list
}

func wireCapabilities(j frameJSON) (s Capabilities) {
	for _, c := range j.Capabilities {
		s = s.With(Capability(c))
	}
	return s
}

func jsonTime(t time.Time) *uint64 {
	if t.IsZero() {
		return nil
	}
	return new(millis(t))
}

func wireTime(ms *uint64) time.Time {
	if ms == nil {
		return time.Time{}
	}
	return time.UnixMilli(int64(*ms))
}

// fieldsOf returns h as a client would fill it in, without the bytes that a
// parsed one keeps.
func fieldsOf(h Hello) Hello {
	h.signed = nil
	return h
}
