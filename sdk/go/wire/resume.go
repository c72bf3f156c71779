package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// ParseAck reads the payload of an ACK: how many reliable frames have been applied.
func ParseAck(payload []byte) (rsn uint64, err error) {
	rsn, err = parseVarint(payload)
	return rsn, within("ACK: rsn", err)
}

// AppendAck appends an ACK.
func AppendAck(dst []byte, rsn uint64) []byte {
	dst = AppendFrameHeader(dst, TypeAck, 0, SizeVarint(rsn))
	return AppendVarint(dst, rsn)
}

// ResumeProof shows that its maker knows the secret of a session, for one connection
// and one attempt.
type ResumeProof [sha256.Size]byte

// A Resumption asks for a session to go on over the connection that it comes on.
type Resumption struct {
	SessionID [16]byte
	Attempt   uint64 // higher than of every earlier one of this session
	Received  uint64 // how many reliable frames the client has applied
	Proof     ResumeProof
	Padding   int // bytes to be written that mean nothing; a parsed one does not tell
}

// Prove returns the proof of r for a CHALLENGE. binding is the connection's
// tls-exporter when the session has [ChannelBinding], and empty otherwise.
func (r Resumption) Prove(secret, challengeNonce [32]byte, binding []byte) ResumeProof {
	return prove("HTTVPS1 resume\x00", secret, challengeNonce, r.SessionID, r.Attempt, r.Received, binding)
}

// ParseResume reads the payload of a RESUME.
func ParseResume(payload []byte) (Resumption, error) {
	var r Resumption
	if len(payload) < len(r.SessionID) {
		return Resumption{}, malformed("RESUME: session_id cut off")
	}
	payload = payload[copy(r.SessionID[:], payload):]
	var (
		n   int
		err error
	)
	if r.Attempt, n, err = ConsumeVarint(payload); err != nil {
		return Resumption{}, within("RESUME: attempt", err)
	}
	payload = payload[n:]
	if r.Received, r.Proof, err = parseReceived(payload); err != nil {
		return Resumption{}, within("RESUME", err)
	}
	return r, nil
}

// AppendResume appends a RESUME.
func AppendResume(dst []byte, r Resumption) []byte {
	size := len(r.SessionID) + SizeVarint(r.Attempt) + SizeVarint(r.Received) + len(r.Proof) + sizePadding(r.Padding)
	dst = AppendFrameHeader(dst, TypeResume, 0, size)
	dst = append(dst, r.SessionID[:]...)
	dst = AppendVarint(dst, r.Attempt)
	dst = AppendVarint(dst, r.Received)
	dst = append(dst, r.Proof[:]...)
	return appendPadding(dst, r.Padding)
}

// Resumed is the gateway's answer: the session goes on.
type Resumed struct {
	Received uint64 // how many reliable frames the gateway has applied
	Proof    ResumeProof
	Padding  int // bytes to be written that mean nothing; a parsed one does not tell
}

// Prove returns the proof of r as the answer to asked, on the same connection.
func (r Resumed) Prove(secret, challengeNonce [32]byte, asked Resumption, binding []byte) ResumeProof {
	return prove("HTTVPS1 resumed\x00", secret, challengeNonce, asked.SessionID, asked.Attempt, r.Received, binding)
}

// ParseResumed reads the payload of a RESUMED.
func ParseResumed(payload []byte) (r Resumed, err error) {
	if r.Received, r.Proof, err = parseReceived(payload); err != nil {
		return Resumed{}, within("RESUMED", err)
	}
	return r, nil
}

// AppendResumed appends a RESUMED.
func AppendResumed(dst []byte, r Resumed) []byte {
	dst = AppendFrameHeader(dst, TypeResumed, 0, SizeVarint(r.Received)+len(r.Proof)+sizePadding(r.Padding))
	dst = AppendVarint(dst, r.Received)
	dst = append(dst, r.Proof[:]...)
	return appendPadding(dst, r.Padding)
}

// parseReceived reads what RESUME and RESUMED end with.
func parseReceived(payload []byte) (received uint64, proof ResumeProof, err error) {
	received, n, err := ConsumeVarint(payload)
	if err != nil {
		return 0, proof, within("rx_rsn", err)
	}
	if payload = payload[n:]; len(payload) < len(proof) {
		return 0, proof, malformed("proof cut off")
	}
	payload = payload[copy(proof[:], payload):]
	return received, proof, checkTLVs(payload, MaxTLVBlock)
}

func prove(label string, secret, nonce [32]byte, session [16]byte, attempt, received uint64, binding []byte) ResumeProof {
	mac := hmac.New(sha256.New, secret[:])
	_, _ = mac.Write([]byte(label)) // a hash never fails
	_, _ = mac.Write(nonce[:])
	_, _ = mac.Write(session[:])
	_, _ = mac.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, attempt), received))
	_, _ = mac.Write(binding)
	return ResumeProof(mac.Sum(nil))
}

// Equal compares two proofs in constant time.
func (p ResumeProof) Equal(other ResumeProof) bool { return hmac.Equal(p[:], other[:]) }
