// Package frame is the strict parser: it turns an Ethernet frame into a fixed
// key of fields, or into the named reason why it must drop.
package frame
