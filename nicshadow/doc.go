// Package nicshadow is the data path of a pod: it takes every frame that a
// container sends, finds the program of its sender, judges, and only then
// moves the frame on.
//
// A [Table] says which program judges whom. A [Switch] takes frames from ports
// and forwards what the table lets pass along a fixed table of addresses. A card
// of the host is read, by a goroutine for each port; a guest's device model
// pushes ([Switch.AddPushPort]), so that a frame is judged before the guest runs
// on. Where containers of a guest share a card ([Switch.AddSharedPort]), each
// frame comes with its [Origin], as introspection found it. A [DropLog] and a
// [Capture] tell what did not pass, and why. The devices come in as values
// (packages tap and uplink).
//
// # The rules
//
//   - Fail closed. An unknown sender, a sender without a program, a frame that
//     does not parse and a destination that nobody owns each drop with a
//     [Reason] of their own, which is counted.
//
//   - A port is open while its sender has a program in force. Before the first
//     [Table.Swap] (and after [Table.Unregister]) no frame leaves it and none
//     reaches it.
//
//   - A reload is atomic. [Table.Load] verifies and stages, [Table.Swap] stores
//     one pointer: each frame is judged by the old program or by the new one,
//     whole. A program that fails verification changes nothing.
//
//   - What is judged is what is sent: a frame is read once into a private
//     buffer, judged there, and written from there.
//
//   - Addresses are assigned, never learned. A forged source address, let
//     through by a policy with its guards off, still moves nothing.
//
//   - A guest's port has an envelope: the host's own program, given with the
//     port and sealed in it. A frame must pass both programs. What the envelope
//     drops, drops in audit mode too, unless the host itself only watches.
//
//   - What a program remembers ([rule.State]) is its sender's own, goes on over
//     a reload, and is noted of what passes only: a frame that goes on, or one
//     that reaches the container.
//
//   - A program may judge what its container is sent, too: that drops at the
//     last step, for this receiver alone, as the receiver's "ingress policy".
//
//   - In audit mode the verdict is counted and told as "would drop", and the
//     frame goes on. It takes a program to be in audit mode: the reasons that
//     are not about the frame (unknown sender, another's address, no program,
//     unknown destination, longer than the card's MTU allows) drop in either
//     mode.
//
//     table := nicshadow.NewTable()
//     table.Register(1, "web")
//     hash, err := table.Load(1, program)   // verified, staged
//     err = table.Swap(1, hash, nicshadow.Enforce)
//     sw := nicshadow.NewSwitch(nicshadow.Config{Table: table})
//     err = sw.AddPort(nicshadow.PortConfig{Name: "web", Sender: 1, MAC: mac, Device: dev})
package nicshadow
