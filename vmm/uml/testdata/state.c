// The first process of a test's guest: threads and processes that each keep
// something else in their registers and their memory, through system calls,
// page faults, signals and turns of the others, and look whether it is still
// there. It prints what it found and powers off.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 512, ROUNDS = 400 };

static volatile int ticks;

// A handler that computes: the host's registers are another's meanwhile.
static void tick(int sig)
{
	volatile double x = ticks;
	x = x * 1.5 + sig;
	asm volatile("pxor %%xmm0, %%xmm0; pxor %%xmm7, %%xmm7; pxor %%xmm15, %%xmm15" ::: "memory");
	ticks++;
}

// turn loads the registers with a pattern, makes a system call and writes to a
// page that is not there yet, and returns whether they have it still.
static int turn(unsigned char seed, char *page)
{
	unsigned char in[256], out[256];
	unsigned int csr = 0x1f80 | (seed & 3) << 13, csr2; // how it rounds
	unsigned short cw = 0x37f & ~0xc00, cw2;
	cw |= (seed & 3) << 10;
	for (int i = 0; i < 256; i++)
		in[i] = seed * 31 + i;
	long nr = 24; // sched_yield
	asm volatile(
		"ldmxcsr %[csr]\n fldcw %[cw]\n"
		"movdqu (%[in]), %%xmm0\n movdqu 16(%[in]), %%xmm1\n movdqu 32(%[in]), %%xmm2\n movdqu 48(%[in]), %%xmm3\n"
		"movdqu 64(%[in]), %%xmm4\n movdqu 80(%[in]), %%xmm5\n movdqu 96(%[in]), %%xmm6\n movdqu 112(%[in]), %%xmm7\n"
		"movdqu 128(%[in]), %%xmm8\n movdqu 144(%[in]), %%xmm9\n movdqu 160(%[in]), %%xmm10\n movdqu 176(%[in]), %%xmm11\n"
		"movdqu 192(%[in]), %%xmm12\n movdqu 208(%[in]), %%xmm13\n movdqu 224(%[in]), %%xmm14\n movdqu 240(%[in]), %%xmm15\n"
		"syscall\n"
		"movb $1, (%[page])\n"
		"movdqu %%xmm0, (%[out])\n movdqu %%xmm1, 16(%[out])\n movdqu %%xmm2, 32(%[out])\n movdqu %%xmm3, 48(%[out])\n"
		"movdqu %%xmm4, 64(%[out])\n movdqu %%xmm5, 80(%[out])\n movdqu %%xmm6, 96(%[out])\n movdqu %%xmm7, 112(%[out])\n"
		"movdqu %%xmm8, 128(%[out])\n movdqu %%xmm9, 144(%[out])\n movdqu %%xmm10, 160(%[out])\n movdqu %%xmm11, 176(%[out])\n"
		"movdqu %%xmm12, 192(%[out])\n movdqu %%xmm13, 208(%[out])\n movdqu %%xmm14, 224(%[out])\n movdqu %%xmm15, 240(%[out])\n"
		"stmxcsr %[csr2]\n fnstcw %[cw2]\n"
		: [csr2] "=m"(csr2), [cw2] "=m"(cw2), "+a"(nr)
		: [csr] "m"(csr), [cw] "m"(cw), [in] "r"(in), [out] "r"(out), [page] "r"(page)
		: "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
		  "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	return !memcmp(in, out, 256) && (csr2 & 0x6000) == (csr & 0x6000) && cw2 == cw;
}

static void *registers(void *seed)
{
	long kept = 0;

	for (int i = 0; i < ROUNDS; i += PAGES) {
		char *area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (int n = 0; n < PAGES && i + n < ROUNDS; n++)
			kept += turn((long)seed + i + n, area + (n * 37 % PAGES) * PAGE);
		munmap(area, PAGES * PAGE);
	}
	return (void *)kept;
}

// together runs four threads and returns how many rounds kept their registers.
static long together(long seed)
{
	pthread_t t[4];
	long kept = 0;

	for (long i = 0; i < 4; i++)
		if (pthread_create(&t[i], NULL, registers, (void *)(seed + i * 7)))
			return -1;
	for (int i = 0; i < 4; i++) {
		void *n;
		pthread_join(t[i], &n);
		kept += (long)n;
	}
	return kept;
}

// own reports how many bytes of a private copy of a file are right, of which
// some pages were written to, and whether the file is as it was.
static void own(const char *path)
{
	static char was[64 * PAGE], is[64 * PAGE];
	int fd = open(path, O_RDONLY);
	char *m = mmap(NULL, sizeof(was), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	int wrong = 0;

	if (pread(fd, was, sizeof(was), 0) != sizeof(was) || m == MAP_FAILED) {
		printf("no file to map\n");
		return;
	}
	for (int n = 5; n < 64; n += 21)
		m[n * PAGE + 7] ^= 0xff;
	for (int i = 0; i < (int)sizeof(was); i++) {
		int written = i % PAGE == 7 && i / PAGE % 21 == 5;
		wrong += m[i] != (char)(was[i] ^ (written ? 0xff : 0));
	}
	wrong += pread(fd, is, sizeof(is), 0) != sizeof(is) || memcmp(was, is, sizeof(was));
	printf("private file: %d wrong\n", wrong);
}

// fresh reports how many bytes of new memory are not what they have to be,
// in this process and in a child that writes to its copy.
static void fresh(void)
{
	char *m = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int wrong = 0, status;

	for (int n = 0; n < PAGES; n += 3)
		m[n * PAGE] = n;
	mprotect(m + 100 * PAGE, 10 * PAGE, PROT_READ);
	if (fork() == 0) {
		for (int n = 0; n < PAGES; n++)
			if (n < 100 || n >= 110)
				m[n * PAGE + 1] = 1;
		_exit(0);
	}
	wait(&status);
	for (int i = 0; i < PAGES * PAGE; i++)
		wrong += m[i] != (char)(i % PAGE == 0 && i / PAGE % 3 == 0 ? i / PAGE : 0);
	printf("new memory: %d wrong\n", wrong + status);
}

int main(void)
{
	struct itimerval often = { { 0, 2000 }, { 0, 2000 } };
	int all = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGALRM, tick);
	for (int i = 0; i < 2; i++)
		if (fork() == 0) {
			setitimer(ITIMER_REAL, &often, NULL);
			_exit(together(100 * i) == 4 * ROUNDS ? 0 : 1);
		}
	setitimer(ITIMER_REAL, &often, NULL);
	printf("registers: %ld of %d kept\n", together(50), 4 * ROUNDS);
	for (int i = 0; i < 2; i++) {
		int status = 1;
		wait(&status);
		all += status == 0;
	}
	setitimer(ITIMER_REAL, &(struct itimerval){}, NULL);
	printf("children: %d of 2 kept theirs; signals: %s\n", all, ticks ? "some" : "none");
	own("/init");
	fresh();
	fflush(stdout);
	reboot(RB_POWER_OFF);
}
