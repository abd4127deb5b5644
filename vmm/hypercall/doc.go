// Package hypercall is the ABI by which a machine's agent puts policies in
// force: calls, their encoding, and the server that answers them. It says
// nothing of the transport: a request is a byte slice, and so is its answer.
// On machine host both ends are in one process ([Client] over [Server.Call]);
// a machine with a guest carries the same bytes over vsock or a doorbell.
//
// # A call
//
// Every message is a header of 24 bytes and a payload, all little-endian:
//
//	0         4      6      8               16         20          24
//	| magic   | ver  | call | seq           | length   | status    | payload ...
//
// magic is 0x494B4553 ("SEKI"). ver is the version that hello settled, and 0 in
// hello itself: the header never changes its shape. call is a [Call]. seq is
// the caller's number for the request, repeated in the answer. length is that
// of the payload, exactly. status is 0 in a request and a [Status] in an
// answer. The payload of a refusal is its reason in UTF-8, at most
// [MaxMessage] bytes.
//
// # Security considerations
//
// The other end may be a guest kernel that an attacker owns.
//
//   - The first call must be hello with the 32-byte secret handed over at boot.
//     Until then every other call is refused, and a wrong secret changes
//     nothing. Secrets are compared in constant time. A [Server] belongs to one
//     channel: whoever holds the channel after hello is the agent.
//   - seq must grow. A request with a number already seen is refused, so that a
//     recorded load cannot bring an older policy back (rollback).
//   - The request is copied before it is looked at: a guest that rewrites its
//     buffer after the check changes nothing (XSA-155 is the pattern).
//   - No length is trusted: sums are made in 64 bits, sizes are compared by
//     subtraction, trailing bytes are refused.
//   - A refused call changes no policy. Refusals are counted by status.
package hypercall
