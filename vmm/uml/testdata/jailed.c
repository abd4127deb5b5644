// Runs in a jail in the place of a kernel that the guest has taken over, and
// tries what try=... says. Says "done" if it worked, the error if it did not;
// it may as well be killed. Outside of a jail all of it works.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *arg = "";

static long result(long r)
{
	return r < 0 ? -errno : 0;
}

static long do_open(void) { return result(open(arg, O_RDONLY)); }
static long do_create(void) { return result(open(arg, O_CREAT | O_WRONLY, 0600)); }
static long do_inet(void) { return result(socket(AF_INET, SOCK_DGRAM, 0)); }
static long do_packet(void) { return result(socket(AF_PACKET, SOCK_RAW, 0)); }
static long do_netlink(void) { return result(socket(AF_NETLINK, SOCK_RAW, 0)); }
static long do_kill(void) { return result(kill(atoi(arg), 0)); }
static long do_attach(void) { return result(ptrace(PTRACE_ATTACH, atoi(arg), 0, 0)); }
static long do_seize(void) { return result(ptrace(PTRACE_SEIZE, atoi(arg), 0, 0)); }
static long do_mount(void) { return result(mount("none", "/tmp", "tmpfs", 0, NULL)); }
static long do_chroot(void) { return result(chroot("/")); }
static long do_unshare(void) { return result(unshare(CLONE_NEWUSER)); }
static long do_setuid(void) { return result(setresuid(1, 1, 1)); }
static long do_memfd(void) { return result(memfd_create("x", 0)); }
static long do_bpf(void) { char attr[128] = { 2, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1 }; return result(syscall(SYS_bpf, 0, attr, sizeof(attr))); }
static long do_uring(void) { char p[256] = { 0 }; return result(syscall(SYS_io_uring_setup, 1, p)); }
static long do_keyctl(void) { return result(syscall(SYS_add_key, "user", "x", "y", 1, -3)); }
static long do_seccomp(void) { return result(prctl(PR_GET_SECCOMP)); }
static long do_persona(void) { return result(syscall(SYS_personality, 0xffffffff)); }
static long do_setns(void) { return result(setns(open("/proc/self/ns/uts", O_RDONLY), 0)); }
static long do_tty(void) { char c = 0; return result(syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, &c)); }
static long do_handle(void)
{
	char h[128] = { 128 - 8 };
	int id;
	return result(syscall(SYS_name_to_handle_at, AT_FDCWD, "/", h, &id, 0));
}

static long do_exec(void)
{
	pid_t p = fork(); // the child becomes what it executes, and ends with 0
	int st;
	if (p == 0) {
		char *argv[] = { (char *)arg, "try=nothing", NULL };
		execve(arg, argv, NULL);
		_exit(errno);
	}
	if (waitpid(p, &st, 0) != p)
		return -errno;
	return WIFEXITED(st) ? -WEXITSTATUS(st) : -ENOSYS;
}

static long do_exec_fd(void) // by a descriptor, as the stage executed us
{
	int fd = open(arg, O_RDONLY);
	if (fd < 0)
		return -errno;
	if (dup2(fd, 1000) < 0)
		return -errno;
	pid_t p = fork();
	int st;
	if (p == 0) {
		char *argv[] = { "x", "try=nothing", NULL };
		syscall(SYS_execveat, 1000, "", argv, NULL, AT_EMPTY_PATH);
		_exit(errno);
	}
	waitpid(p, &st, 0);
	return WIFEXITED(st) ? -WEXITSTATUS(st) : -ENOSYS;
}

static long do_clone(void)
{
	long p = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	if (p == 0)
		_exit(0);
	if (p > 0)
		waitpid(p, NULL, 0);
	return result(p);
}

static long do_vmread(void)
{
	char here[8];
	struct iovec l = { here, 1 }, r = { (void *)do_vmread, 1 };
	return result(process_vm_readv(getpid(), &l, 1, &r, 1, 0));
}

static long connect_to(const char *name, int abstract)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0)
		return -errno;
	strncpy(a.sun_path + abstract, name, sizeof(a.sun_path) - 2);
	return result(connect(fd, (void *)&a, offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name) + !abstract));
}

static long do_unix(void) { return connect_to(arg, 0); }
static long do_abstract(void) { return connect_to(arg, 1); }

// Descriptors other than the console: any would lead out.
static long do_fds(void)
{
	for (int fd = 3; fd < 5000; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			printf("open: %d\n", fd);
	return 0;
}

// All files that there are.
static void list(const char *dir)
{
	char path[512];
	struct dirent *e;
	DIR *d = opendir(*dir ? dir : "/");
	if (!d) {
		printf("unreadable: %s\n", dir);
		return;
	}
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.' && (!e->d_name[1] || e->d_name[1] == '.'))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		printf("file: %s\n", path);
		if (e->d_type == DT_DIR)
			list(path);
	}
	closedir(d);
}

static long do_list(void) { list(""); list("/run"); list("/dev"); return 0; }
static long do_nothing(void) { return 0; }

// What kernels say that cannot run, or die.
static long do_xstate(void) { printf("ptrace set fp regs failed, errno = 14\n"); exit(1); }
static long do_noexec(void) { printf("/run must be not mounted noexec\n"); exit(1); }
static long do_exit(void) { printf("so long\n"); exit(atoi(arg)); }
static long do_off(void) { printf("[    0.020000] reboot: Power down\r\n"); exit(atoi(arg)); }
static long do_segv(void) { return *(volatile long *)NULL; }

static const struct {
	const char *name;
	long (*do_it)(void);
} tries[] = {
	{ "open", do_open }, { "create", do_create }, { "inet", do_inet }, { "packet", do_packet }, { "netlink", do_netlink },
	{ "kill", do_kill }, { "attach", do_attach }, { "seize", do_seize }, { "mount", do_mount }, { "chroot", do_chroot },
	{ "unshare", do_unshare }, { "setuid", do_setuid }, { "memfd", do_memfd }, { "bpf", do_bpf }, { "uring", do_uring },
	{ "keyctl", do_keyctl }, { "seccomp", do_seccomp }, { "personality", do_persona }, { "setns", do_setns }, { "tty", do_tty },
	{ "handle", do_handle }, { "exec", do_exec }, { "exec_fd", do_exec_fd }, { "clone", do_clone }, { "vmread", do_vmread },
	{ "unix", do_unix }, { "abstract", do_abstract }, { "fds", do_fds }, { "list", do_list }, { "nothing", do_nothing },
	{ "xstate", do_xstate }, { "noexec", do_noexec }, { "exit", do_exit }, { "segv", do_segv }, { "off", do_off },
};

int main(int argc, char **argv)
{
	const char *what = "nothing";

	setvbuf(stdout, NULL, _IONBF, 0);
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "try=", 4))
			what = argv[i] + 4;
		if (!strncmp(argv[i], "arg=", 4))
			arg = argv[i] + 4;
	}
	for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++)
		if (!strcmp(what, tries[i].name)) {
			long r = tries[i].do_it();
			printf("%s: %s\n", what, r ? strerror(-r) : "done");
			return 0;
		}
	printf("no such try\n");
	return 1;
}
