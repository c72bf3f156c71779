// Package nodes is the gateway's side of the control plane: joining, the keys
// that verify devices' tokens, the decision about a device, heartbeats, the
// Outline servers that sessions leave through, events, and the word that a session
// has ended.
//
// The gateway only ever asks; the control plane never connects to it. It
// proves who it is with its own key (a signed assertion on each request), and
// knows the control plane by the public authorities or by the pin that came
// with the join link.
package nodes
