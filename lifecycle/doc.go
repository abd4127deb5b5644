// Package lifecycle runs a pod: the containers one file describes, from the
// first process to the last byte removed. It knows neither the language the
// pod was written in nor how frames are judged: a policy is opaque bytes to it,
// and the data path is a [Network].
//
// One supervisor process holds one pod. [Start] takes every container, in the
// order of the file, through these steps:
//
//	create             processes in new namespaces, waiting     status creating
//	create_runtime     hooks
//	attach             the network card, its policy in force
//	create_container   hooks
//	prepare            root file system, mounts, pivot_root     status created
//
// and only when every container has got so far, so that all peers exist:
//
//	start_container    hooks
//	start              the workload is executed                 status running
//	poststart          hooks
//
// From then on each container lives by itself: its ready probe and the ready
// hooks, then the hooks of timers, signals, violations and out-of-memory kills,
// one at a time; when it has exited (status stopped) the poststop hooks run, its
// card is detached and the rest of it destroyed. The pod has ended when all its
// containers have; [Pod.Wait] then returns and nothing of it is left, on disk or
// elsewhere, unless [PodConfig.Keep] asked for the records to stay.
//
// # Rules
//
// No frame of a container leaves before its policy is in force: nothing of the
// workload has run when [Network.Attach] is called, and Attach returns only when
// the program judges.
//
// Failure undoes: whatever step of whatever container fails, every step done so
// far is undone, each one is tried, and the errors are joined behind a
// [*StepError] that names the step and the container.
//
// A supervisor that is killed leaves processes, cgroups and a directory. What
// must be removed is on disk before it is made, so [CleanUp], which every start
// of the program calls, finds and removes it. It runs nothing of the user's.
//
// # Example
//
//	pod, err := lifecycle.Start(ctx, lifecycle.PodConfig{
//		Name:       "web",
//		Root:       "/run/seki",
//		Containers: []lifecycle.Config{{Spec: spec, Program: program, Mode: "enforce"}},
//		Network:    network,
//		Stdio:      lifecycle.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr},
//	})
//	if err != nil {
//		return err
//	}
//	code, err := pod.Wait()
package lifecycle
