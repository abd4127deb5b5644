// Package lint finds what is right in a .star file's grammar and wrong in its
// meaning: branches that no frame gets to, predicates that always say the same,
// names that nobody uses, and policies that let packets out to where ARP or
// neighbour discovery does not find anybody.
//
// What it says of predicates is not guessed from the text: it comes from the
// decision graphs that the compiler made of them, over all containers of the
// file, so that a branch which is dead for one card and alive for another is
// alive.
package lint
