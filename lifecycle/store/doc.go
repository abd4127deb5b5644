// Package store keeps the state directory: what is on disk about the pods that
// run, so that other processes can find them and a later one can remove what a
// dead supervisor left.
//
//	/run/seki/             0700, owned by the user seki runs as
//	  lock                 held for moments, while a name and ids are taken
//	  pods/NAME/
//	    lock               locked as long as the supervisor lives
//	    state.json         replaced whole; see State
//	    events.jsonl       and events.jsonl.1, see Rotated
//	    control.sock       the supervisor's
//	    supervisor.log     of a supervisor in the background
//	    out.CONTAINER.log  and out.CONTAINER.log.1
//
// # Rules
//
// The lock says whether a supervisor lives, and nothing else does: not a pid,
// which may have been given to somebody else, and not the state, which a killed
// supervisor leaves as it was. It is a lock of the open file description
// (fcntl, F_OFD_SETLK): unlike flock's it can be asked about without being
// taken, so that looking never makes a start fail.
//
// What is written about a container is written before the container is made.
// The state is the last thing removed before the lock, so that a removal which
// is cut short can be taken up again.
//
// No symbolic link is followed below the state directory and no mount point is
// crossed: something bound there by mistake must not be emptied.
package store
