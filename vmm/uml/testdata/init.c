// The first process of a test's guest: does what the kernel's command line
// says (do=...), prints how it went, and powers off.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void say(const char *what, int failed)
{
	printf("%s: %s\n", what, failed ? strerror(errno) : "done");
}

// What guest root may try against the host.
static void escape(void)
{
	const char *files[] = { "/etc/passwd", "/proc/1/root/etc/passwd", "/dev/mem", "/dev/ubda", "/run/initrd", NULL };

	say("hostfs", mount("none", "/mnt", "hostfs", 0, "/") < 0);
	say("hostfs dotdot", mount("none", "/mnt", "hostfs", 0, "/../../../etc") < 0);
	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	for (int i = 0; files[i]; i++) {
		int fd = open(files[i], O_RDONLY);
		say(files[i], fd < 0);
	}
	// Host processes: none but this guest's own are to be seen.
	char path[32];
	int seen = 0;
	for (int pid = 2; pid < 4000; pid++) {
		sprintf(path, "/proc/%d/exe", pid);
		char buf[64];
		if (readlink(path, buf, sizeof(buf)) > 0)
			seen++; // kernel threads have none
	}
	printf("processes: %d\n", seen);
}

static void stop(void)
{
	fflush(stdout);
	tcdrain(1); // a machine without power sends nothing
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

int main(void)
{
	const char *what = getenv("do");

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("init runs\n");
	if (getenv("tag"))
		printf("I am %s.\n", getenv("tag"));
	if (!what)
		stop();
	if (!strcmp(what, "escape"))
		escape();
	if (!strcmp(what, "wait"))
		for (;;)
			pause();
	if (!strcmp(what, "tree")) { // processes that do something, for ever
		for (int i = 0; i < 4; i++)
			if (fork() == 0)
				for (;;)
					usleep(1000);
		printf("tree grown\n");
		for (;;)
			wait(NULL);
	}
	if (!strcmp(what, "panic"))
		return 3;
	if (!strcmp(what, "restart"))
		tcdrain(1), reboot(RB_AUTOBOOT);
	if (!strcmp(what, "flood"))
		for (int i = 0; i < 20000; i++)
			printf("%06d 0123456789012345678901234567890123456789\n", i);
	stop();
}
