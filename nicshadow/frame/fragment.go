package frame

// minFragmentOffset is the least offset, in 8-byte units, of a later fragment:
// behind the 20 bytes of a TCP header, the longest fixed transport header. A
// fragment before it would overwrite fields that were judged in the first one
// (RFC 1858, 3; RFC 3128). No link has an MTU that makes one: the least IPv4
// MTU leaves 48 bytes (RFC 791).
const minFragmentOffset = 3

// A fragmentKind says what a packet is to its datagram.
type fragmentKind uint8

const (
	notFragment    fragmentKind = iota
	atomicFragment              // the whole datagram, but with a Fragment header (RFC 6946)
	firstFragment
	laterFragment
)

// no allocation, no lock, no log below this line

// checkFragment checks a fragment that carries n bytes at offset, in 8-byte
// units: all but the last are made of whole units, none reaches behind most
// bytes, and none overlaps the header in the first. What is malformed is so
// under the name of its IP version.
func checkFragment(more bool, offset, n, most int, malformed Reason) Reason {
	switch {
	case more && (n%8 != 0 || n == 0):
		return malformed
	case offset*8+n > most:
		return malformed
	case offset > 0 && offset < minFragmentOffset:
		return FragmentOverlap
	}
	return OK
}
