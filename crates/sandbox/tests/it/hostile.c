/* What hostile programs try. `hostile NAME` exits 0 if the attempt was refused, 1 if it succeeded. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int refused(long result, int error) {
    if (result != -1) { printf("succeeded\n"); return 1; }
    if (error && errno != error) { printf("errno %d, not %d\n", errno, error); return 1; }
    return 0;
}

static void *idle(void *unused) { (void)unused; pause(); return 0; }

static char *take(size_t bytes) {
    char *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 0;
    for (size_t at = 0; at < bytes; at += 4096) memory[at] = 1;
    return memory;
}

int main(int count, char **words) {
    const char *name = count > 1 ? words[1] : "";
    const char *word = count > 2 ? words[2] : "";
#define IS(text) (!strcmp(name, text))
    if (IS("forks")) for (;;) fork();
    if (IS("threads")) {
        pthread_t thread;
        for (;;) if (pthread_create(&thread, 0, idle, 0)) usleep(1000);
    }
    if (IS("memory")) for (;;) if (!take(16 << 20)) pause();
    if (IS("memories")) {
        for (int i = 0; i < 20; i++) if (!fork()) { take(16 << 20); pause(); }
        pause();
    }
    if (IS("spin")) for (;;) ;
    if (IS("spins")) { fork(); for (;;) ; }
    if (IS("ignored-children")) {
        /* Nobody waits for them, so the kernel counts their time for nobody. */
        signal(SIGCHLD, SIG_IGN);
        for (;;) { if (!fork()) { for (volatile long i = 0; i < 200000000; i++) ; _exit(0); } wait(0); }
    }
    if (IS("short-children")) {
        for (;;) { if (!fork()) { for (volatile long i = 0; i < 2000000; i++) ; _exit(0); } wait(0); }
    }
    if (IS("inodes")) for (long i = 0;; i++) {
        char path[64]; snprintf(path, sizeof path, "/tmp/%ld", i);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        if (fd >= 0) close(fd); else usleep(1000);
    }
    if (IS("removes-when-full")) {
        static char block[1 << 20];
        int fd = open("/tmp/big", O_CREAT | O_WRONLY, 0600);
        while (write(fd, block, sizeof block) > 0) ;
        usleep(100000);
        unlink("/tmp/big");
        return 3;
    }
    if (IS("daemon")) {
        if (fork()) return 0;
        setsid();
        signal(SIGTERM, SIG_IGN); signal(SIGHUP, SIG_IGN);
        if (fork()) return 0;
        /* Keeps stdout open, as a badly behaved daemon does. */
        for (;;) pause();
    }
    if (IS("memfd")) return refused(syscall(SYS_memfd_create, "x", 0), ENOSYS);
    if (IS("shmget")) return refused(syscall(SYS_shmget, 0, 4096, 0600), ENOSYS);
    if (IS("mount")) return refused(mount("none", "/tmp", "tmpfs", 0, ""), EPERM);
    if (IS("umount")) return refused(umount2("/proc/sys", MNT_DETACH), EPERM);
    if (IS("open_tree")) return refused(syscall(428, AT_FDCWD, "/", 1), EPERM);
    if (IS("fsopen")) return refused(syscall(430, "tmpfs", 0), EPERM);
    if (IS("chroot")) return refused(chroot("/tmp"), EPERM);
    if (IS("pivot_root")) return refused(syscall(SYS_pivot_root, ".", "."), EPERM);
    if (IS("unshare")) return refused(unshare(CLONE_NEWUSER), EPERM);
    if (IS("setns")) return refused(setns(open("/proc/self/ns/net", O_RDONLY), 0), EPERM);
    if (IS("clone")) return refused(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), EPERM);
    if (IS("clone-net")) return refused(syscall(SYS_clone, CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0), EPERM);
    if (IS("clone3")) return refused(syscall(435, 0, 0), ENOSYS);
#ifdef __x86_64__
    if (IS("x32")) return refused(syscall(0x40000000 + 39), ENOSYS);
#endif
    if (IS("ptrace")) {
        pid_t child = fork();
        if (!child) { pause(); _exit(0); }
        int result = refused(ptrace(PTRACE_ATTACH, child, 0, 0), EPERM);
        kill(child, SIGKILL);
        return result;
    }
    if (IS("vm_readv")) return refused(syscall(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0), EPERM);
    if (IS("pidfd_getfd")) return refused(syscall(438, 0, 0, 0), EPERM);
    if (IS("bpf")) return refused(syscall(SYS_bpf, 0, 0, 0), EPERM);
    if (IS("perf")) return refused(syscall(SYS_perf_event_open, 0, 0, -1, -1, 0), EPERM);
    if (IS("keyctl")) return refused(syscall(SYS_keyctl, 0, -3, 1), EPERM);
    if (IS("add_key")) return refused(syscall(SYS_add_key, "user", "x", "y", 1, -3), EPERM);
    if (IS("io_uring")) return refused(syscall(425, 1, 0), ENOSYS);
    if (IS("userfaultfd")) return refused(syscall(SYS_userfaultfd, 0), EPERM);
    if (IS("module")) return refused(syscall(SYS_finit_module, 0, "", 0), EPERM);
    if (IS("kexec")) return refused(syscall(SYS_kexec_load, 0, 0, 0, 0), EPERM);
    if (IS("reboot")) return refused(syscall(SYS_reboot, 0, 0, 0, 0), EPERM);
    if (IS("handle")) return refused(syscall(SYS_open_by_handle_at, AT_FDCWD, 0, 0), EPERM);
    if (IS("sethostname")) return refused(sethostname("x", 1), EPERM);
    if (IS("settime")) { struct timespec now = {0, 0}; return refused(clock_settime(CLOCK_REALTIME, &now), EPERM); }
    if (IS("prlimit")) { struct rlimit none = {0, 0}; return refused(prlimit(1, RLIMIT_NOFILE, &none, 0), EPERM); }
    if (IS("kill-init")) { kill(1, SIGKILL); kill(1, SIGSTOP); return 0; }
    if (IS("kill")) return refused(kill(atoi(word), 0), 0);
    if (IS("tiocsti")) { char c = 'x'; return refused(ioctl(0, TIOCSTI, &c), EPERM); }
    if (IS("tiocsti-high")) { char c = 'x'; return refused(syscall(SYS_ioctl, 0, 0xffffffff00000000ul | TIOCSTI, &c), EPERM); }
    if (IS("tty")) return refused(open("/dev/tty", O_RDWR), 0);
    if (IS("mknod")) return refused(mknod("/tmp/disk", S_IFBLK | 0600, makedev(254, 0)), 0) || refused(mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1)), 0);
    if (IS("setuid")) return refused(setuid(12345), 0) || refused(setgid(12345), 0);
    if (IS("netlink")) return refused(socket(AF_NETLINK, SOCK_RAW, 0), EPERM);
    if (IS("packet")) return refused(socket(AF_PACKET, SOCK_RAW, 0), EPERM);
    if (IS("vsock")) return refused(socket(AF_VSOCK, SOCK_STREAM, 0), EPERM);
    if (IS("tcp") || IS("udp")) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(word))};
        inet_aton("127.0.0.1", &to.sin_addr);
        int fd = socket(AF_INET, IS("tcp") ? SOCK_STREAM : SOCK_DGRAM, 0);
        if (fd < 0) return 0;
        return refused(IS("tcp") ? connect(fd, (void *)&to, sizeof to)
                                 : sendto(fd, "x", 1, 0, (void *)&to, sizeof to), 0);
    }
    if (IS("dns")) { struct addrinfo *found; return getaddrinfo("example.org", 0, 0, &found) == 0; }
    if (IS("abstract")) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        strcpy(to.sun_path + 1, word);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        return refused(connect(fd, (void *)&to, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(word)), 0);
    }
    if (IS("write")) return refused(open(word, O_WRONLY | O_CREAT, 0600), 0);
    if (IS("read")) return refused(open(word, O_RDONLY), 0);
    if (IS("mkdir")) return refused(mkdir(word, 0700), 0);
    if (IS("dumpable-init")) return refused(open("/proc/1/environ", O_RDONLY), 0);
    if (IS("descriptors")) {
        for (int fd = 3; fd < 1024; fd++) if (fcntl(fd, F_GETFD) != -1) { printf("%d is open\n", fd); return 1; }
        return 0;
    }
    if (IS("core")) { struct rlimit core; getrlimit(RLIMIT_CORE, &core); return core.rlim_max != 0; }
    if (IS("loopback")) {
        struct sockaddr_in at = {.sin_family = AF_INET};
        socklen_t size = sizeof at;
        inet_aton("127.0.0.1", &at.sin_addr);
        int fd = socket(AF_INET, SOCK_STREAM, 0), other = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(fd, (void *)&at, size) || listen(fd, 1)) return 1;
        getsockname(fd, (void *)&at, &size);
        return connect(other, (void *)&at, size) != 0;
    }
    printf("no such attempt: %s\n", name);
    return 99;
}
