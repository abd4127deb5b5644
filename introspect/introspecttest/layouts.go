package introspecttest

import "sekimori/introspect/layout"

// UML is the layout of a User-Mode Linux kernel 6.12, as its BTF had it. Only
// tests know it: another build has another.
func UML() layout.Layout {
	var l layout.Layout
	t, n := &l.Task, &l.Net
	t.PID, t.TGID, t.Comm, t.Flags, t.GroupLeader, t.StartTime = 832, 836, 1248, 20, 888, 1104
	t.Signal, t.ThreadPID, t.NSProxy, t.Cgroups, t.Stack = 1320, 928, 1312, 1552, 8
	t.ThreadInfo, t.PGRP, t.ThreadInfoTask, t.ThreadInfoPreempt = layout.None, layout.None, 0, 20
	t.SignalPGRP, t.PIDLevel, t.PIDNumbers, t.UpidSize, t.UpidNr, t.UpidNS = 360, 4, 96, 16, 0, 8
	t.PIDNSInum, t.NSProxyNet, t.CSSDefault, t.CgroupKN, t.KNID = 120, 40, 72, 256, 96
	n.NetInum, n.SkbSk, n.SkbDev, n.SkbLen, n.SkbIif = 128, 24, 16, 104, 136
	n.SockState, n.SockNet, n.SockCgroup, n.SockKern = 18, 48, 632, layout.Bit{Off: 538, Mask: 2}
	n.DevNet, n.DevList, n.DevAddr, n.DevPriv, n.NetDevices = 256, 328, 952, 1920, 136
	n.DescData, n.DescSize, n.VQNum, n.VQDesc, n.VQState, n.VQPacked, n.VQ = 0, 16, 88, 96, 128, 64, 0
	n.InfoDev, n.InfoSendQueues, n.InfoPairs = 16, 24, 44
	n.SendQueueVQ, n.SendQueueNAPI, n.SendQueueSize = 0, 576, 976
	l.PerCPU.Current, l.PerCPU.Preempt = layout.None, layout.None
	return l
}

// X86 is like one of x86-64, 6.12: what is per CPU lies behind GS.
func X86() layout.Layout {
	l := UML()
	t := &l.Task
	t.PID, t.TGID, t.Comm, t.Signal, t.NSProxy = 2432, 2436, 2976, 3072, 3064
	t.Cgroups, t.GroupLeader, t.ThreadPID = 3584, 2496, 2536
	t.ThreadInfo, t.ThreadInfoTask, t.ThreadInfoPreempt = 0, layout.None, layout.None
	t.SignalPGRP, t.PIDNumbers = 352, 112
	l.PerCPU.Current, l.PerCPU.Preempt = 0x3500, 0x3508
	return l
}

// Old is like one of x86-64, 3.10: thread_info lies at the base of the stack,
// process groups in the task, and cgroups have no inode that is one number.
func Old() layout.Layout {
	l := UML()
	t := &l.Task
	t.SignalPGRP, t.PGRP, t.ThreadPID = layout.None, 700, 676
	t.CSSDefault = layout.None
	t.ThreadInfoTask, t.ThreadInfoPreempt = 0, 28
	l.Net.VQState = layout.None
	return l
}
