// Seki runs containers that a Starlark file describes, and judges every
// Ethernet frame that they send.
//
// Each verb is one file: a function of an [app], which is all of the process
// that it may touch, so that tests call it in-process. wire.go is the only
// place where the five trees of packages meet.
package main
