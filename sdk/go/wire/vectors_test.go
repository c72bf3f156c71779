package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

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
	// Dropped is set where the frame is well-formed and its datagram is to be
	// dropped.
	Dropped bool `json:"dropped"`
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
	Kind  Kind      `json:"kind"` // of the flow that a DGRAM is on
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

var frameFiles = []string{"frames.json", "unknown.json", "open.json", "handshake.json", "resume.json", "goaway.json", "terms.json", "padding.json"}

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
				got, err = decode(f, v.Kind)
			}
			if v.Error != "" {
				wantFault(t, v.outcome, err)
				return
			}
			if v.Dropped != (streamOnly(err) || f.Type == TypeDgram && len(got.Payload) > MaxDatagram) {
				t.Errorf("dropped: %t, want %t (%v)", !v.Dropped, v.Dropped, err)
			}
			if err != nil && !v.Dropped {
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
			if b := encode(t, v.Frame, v.Kind); !bytes.Equal(b, v.Hex) {
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
					j, err = decode(f, 0)
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
				again = append(again, encode(t, j, 0)...)
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

// reauthVector is one of reauth.json.
type reauthVector struct {
	outcome
	Seed         hexBytes `json:"seed"`
	DeviceKey    hexBytes `json:"device_key"`
	SessionID    hexBytes `json:"session_id"`
	RestSHA256   hexBytes `json:"rest_sha256"`
	SigningInput hexBytes `json:"signing_input"`
}

func TestReauthVectors(t *testing.T) {
	for _, v := range load[reauthVector](t, "reauth.json") {
		t.Run(v.Name, func(t *testing.T) {
			f, rest, err := ConsumeFrame(v.Hex)
			if err != nil || len(rest) != 0 {
				t.Fatalf("ConsumeFrame leaves %d bytes: %v", len(rest), err)
			}
			r, err := ParseReauth(f.Payload)
			if err != nil {
				t.Fatal(err)
			}
			input := r.SigningInput([16]byte(v.SessionID))
			if valid := ed25519.Verify(ed25519.PublicKey(v.DeviceKey), input, r.Signature[:]); valid != (v.Error == "") {
				t.Fatalf("the signature is taken for valid: %t", valid)
			}
			if v.Error != "" {
				return
			}
			if !bytes.Equal(input, v.SigningInput) || !bytes.Equal(input[15+16:], v.RestSHA256) {
				t.Errorf("SigningInput = %x\nwant           %x", input, []byte(v.SigningInput))
			}
			if sig := ed25519.Sign(ed25519.NewKeyFromSeed(v.Seed), input); !bytes.Equal(sig, r.Signature[:]) {
				t.Errorf("signature = %x, the REAUTH has %x", sig, r.Signature)
			}
			if v.DecodeOnly {
				return
			}
			fresh := Reauth{AccessToken: r.AccessToken, Signature: r.Signature}
			if own := fresh.SigningInput([16]byte(v.SessionID)); !bytes.Equal(own, input) {
				t.Errorf("SigningInput before sending = %x\nwant %x", own, input)
			}
			if b := AppendReauth(nil, fresh); !bytes.Equal(b, v.Hex) {
				t.Errorf("AppendReauth = %x\nwant           %x", b, []byte(v.Hex))
			}
		})
	}
}

// proofVector is one of proofs.json.
type proofVector struct {
	outcome
	Secret    hexBytes `json:"secret"`
	Nonce     hexBytes `json:"nonce"`
	SessionID hexBytes `json:"session_id"`
	Attempt   uint64   `json:"attempt"`
	Received  uint64   `json:"rx_rsn"`
	Gateway   uint64   `json:"gateway_rx_rsn"`
	Exporter  hexBytes `json:"exporter"`
	Proof     hexBytes `json:"proof"`
	Answer    hexBytes `json:"answer"`
}

func TestResumeProofVectors(t *testing.T) {
	for _, v := range load[proofVector](t, "proofs.json") {
		t.Run(v.Name, func(t *testing.T) {
			asked := Resumption{SessionID: [16]byte(v.SessionID), Attempt: v.Attempt, Received: v.Received}
			proof := asked.Prove([32]byte(v.Secret), [32]byte(v.Nonce), v.Exporter)
			if valid := proof.Equal(ResumeProof(v.Proof)); valid != (v.Error == "") {
				t.Fatalf("the proof is taken for valid: %t", valid)
			}
			if v.Error != "" {
				return
			}
			answer := Resumed{Received: v.Gateway}.Prove([32]byte(v.Secret), [32]byte(v.Nonce), asked, v.Exporter)
			if !answer.Equal(ResumeProof(v.Answer)) {
				t.Errorf("the answer's proof is %x, want %x", answer, []byte(v.Answer))
			}
		})
	}
}

// TestVectorsRejectAtLeastAsMuchAsTheyAccept also keeps a file from going unread:
// one that no test loads is not in its list.
func TestVectorsRejectAtLeastAsMuchAsTheyAccept(t *testing.T) {
	read := []string{
		"varints.json", "tlvs.json", "addresses.json", "hosts.json", "messages.json", "signing.json",
		"reauth.json", "proofs.json", "rsn.json", "credit.json", "knock.json", // whose tests are elsewhere, too: mux and knock
	}
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
		var all []struct {
			outcome
			Refused bool `json:"refused"`
		}
		if err := json.Unmarshal(raw, &all); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		names, invalid := map[string]bool{}, 0
		for _, v := range all {
			if names[v.Name] {
				t.Errorf("%s: two vectors are called %q", file, v.Name)
			}
			names[v.Name] = true
			if v.Error != "" || v.Dropped || v.Refused {
				invalid++
			}
			if v.Error == "" {
				continue
			}
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

// TestVectorsCoverTheDocument: every type of frame has vectors of both sorts, every
// class of unknown types is met, and there are malformed inputs for every code.
func TestVectorsCoverTheDocument(t *testing.T) {
	valid, invalid := map[FrameType]int{}, map[FrameType]int{}
	classes, codes := map[FrameType]int{}, map[string]int{}
	for _, v := range loadFrames(t) {
		if len(v.Hex) == 0 {
			continue
		}
		kind := FrameType(v.Hex[0])
		if !kind.Known() {
			classes[kind&(bitStream|bitReliable|bitCritical)]++
		}
		if v.Error == "" {
			valid[kind]++
			continue
		}
		invalid[kind]++
		if v.Ends != "stream" {
			codes[v.Error]++
		}
	}
	for kind := range FrameType(255) {
		if kind.Known() && (valid[kind] == 0 || invalid[kind] == 0) {
			t.Errorf("%s has %d valid vectors and %d invalid ones", kind, valid[kind], invalid[kind])
		}
	}
	for bits := range FrameType(8) {
		if classes[bits<<5] == 0 {
			t.Errorf("no vector of an unknown type with the class bits %03b", bits)
		}
	}
	malformed := 0
	for _, code := range []Code{CodeProtocol, CodeFrameSize, CodeUnsupported} {
		if codes[code.String()] == 0 {
			t.Errorf("no malformed input ends the session with %s", code)
		}
		malformed += codes[code.String()]
	}
	if malformed < 40 {
		t.Errorf("%d malformed inputs end the session, want 40 at least", malformed)
	}
}
