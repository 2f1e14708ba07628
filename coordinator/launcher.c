#include "coordinator/launcher.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    COMMAND_BYTES_MAX = 32 * 1024,
    STRINGS_MAX = 64,
    POLL_MS = 50,
    TERM_GRACE_MS = 3000,
    COMMAND_NOT_FOUND = 127, /* exit code, as of a shell */
};

struct launcher {
    pid_t helper;
    int socket;
    bool is_running;
    bool has_ended;
    int wait_status; /* of the command, as of waitpid(2) */
};

/* The helper's side. */

/* The command to start: argv strings, an empty one, then "NAME=value" strings. */
struct command {
    char text[COMMAND_BYTES_MAX];
    char *argv[STRINGS_MAX];
    char *environment[STRINGS_MAX];
};

static void command_split(struct command *command, size_t bytes)
{
    char **next = command->argv;

    for (char *text = command->text; text < command->text + bytes; text += strlen(text) + 1) {
        if (*text == '\0')
            next = command->environment;
        else
            *next++ = text;
    }
}

static void become_command(struct command *command, pid_t helper)
{
    sigset_t none;
    const int null = open("/dev/null", O_RDONLY);

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != helper)
        _exit(COMMAND_NOT_FOUND); /* it went before the line above */
    if (null >= 0)
        dup2(null, STDIN_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    for (char **variable = command->environment; *variable != NULL; variable++)
        putenv(*variable);
    execvp(command->argv[0], command->argv);
    log_error("cannot start %s: %s", command->argv[0], strerror(errno));
    _exit(COMMAND_NOT_FOUND);
}

/* Wait for the command up to `ms`; true: it has ended. */
static bool wait_for(pid_t child, int64_t ms, int *status)
{
    const int64_t until_ms = clock_monotonic_ms() + ms;

    while (waitpid(child, status, WNOHANG) == 0) {
        if (clock_monotonic_ms() >= until_ms)
            return false;
        clock_sleep_ms(POLL_MS);
    }
    return true;
}

/* Until the command has ended by itself, or the other side has closed the socket. */
static void attend(int socket, pid_t child)
{
    struct pollfd waiting = {.fd = socket, .events = POLLIN};
    int status = 0;

    for (;;) {
        if (waitpid(child, &status, WNOHANG) != 0) {
            kill(-child, SIGTERM); /* what it may have left behind */
            if (send(socket, &status, sizeof(status), MSG_NOSIGNAL) < 0)
                return; /* nobody is left to be told */
            return;
        }
        if (poll(&waiting, 1, POLL_MS) > 0)
            break;
    }
    kill(-child, SIGTERM);
    if (!wait_for(child, TERM_GRACE_MS, &status)) {
        kill(-child, SIGKILL);
        waitpid(child, &status, 0);
    }
}

static void run_helper(int socket)
{
    static struct command command;
    const pid_t helper = getpid();
    ssize_t bytes;
    pid_t child;

    prctl(PR_SET_NAME, "tca-launcher");
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    do
        bytes = recv(socket, command.text, sizeof(command.text) - 1, 0);
    while (bytes < 0 && errno == EINTR);
    if (bytes <= 0)
        return;
    command_split(&command, (size_t)bytes);
    child = fork();
    if (child == 0)
        become_command(&command, helper);
    if (child < 0) {
        const int status = COMMAND_NOT_FOUND << 8;

        log_error("cannot fork: %s", strerror(errno));
        if (send(socket, &status, sizeof(status), MSG_NOSIGNAL) < 0)
            return;
        return;
    }
    attend(socket, child);
}

/* The coordinator's side. */

enum tca_status launcher_open(struct launcher **launcher_out, struct tca_error *error)
{
    struct launcher *launcher = calloc(1, sizeof(*launcher));
    int ends[2];

    if (launcher == NULL)
        return TCA_ERR_NO_MEMORY;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        free(launcher);
        return tca_fail(error, TCA_ERR_UNAVAILABLE, "launcher: no socket: %s", strerror(errno));
    }
    launcher->helper = fork();
    if (launcher->helper == 0) {
        close(ends[0]);
        run_helper(ends[1]);
        _exit(0);
    }
    close(ends[1]);
    launcher->socket = ends[0];
    if (launcher->helper < 0) {
        close(ends[0]);
        free(launcher);
        return tca_fail(error, TCA_ERR_UNAVAILABLE, "launcher: cannot fork: %s", strerror(errno));
    }
    *launcher_out = launcher;
    return TCA_OK;
}

/* Append one string with its NUL. false: no room. */
static bool add_string(struct command *command, size_t *bytes, const char *text)
{
    const size_t length = strlen(text) + 1;

    if (length > sizeof(command->text) - 1 - *bytes)
        return false;
    memcpy(command->text + *bytes, text, length);
    *bytes += length;
    return true;
}

enum tca_status launcher_run(struct launcher *launcher, const char *const *argv,
                             const char *const *environment, struct tca_error *error)
{
    struct command *command = calloc(1, sizeof(*command));
    size_t bytes = 0;
    size_t strings = 0;
    bool fits = command != NULL;
    ssize_t sent = -1;

    for (size_t i = 0; fits && argv[i] != NULL; i++)
        fits = ++strings < STRINGS_MAX && add_string(command, &bytes, argv[i]);
    strings = 0;
    fits = fits && add_string(command, &bytes, "");
    for (size_t i = 0; fits && environment[i] != NULL; i++)
        fits = ++strings < STRINGS_MAX && add_string(command, &bytes, environment[i]);
    if (fits)
        sent = send(launcher->socket, command->text, bytes, MSG_NOSIGNAL);
    free(command);
    if (!fits)
        return tca_fail(error, TCA_ERR_INVALID,
                        "launcher: the command is over %d bytes or %d parts", COMMAND_BYTES_MAX,
                        STRINGS_MAX);
    if (sent < 0)
        return tca_fail(error, TCA_ERR_UNAVAILABLE, "launcher: its process is gone: %s",
                        strerror(errno));
    launcher->is_running = true;
    return TCA_OK;
}

bool launcher_has_ended(struct launcher *launcher, char *how_out, size_t bytes)
{
    ssize_t got;

    if (!launcher->is_running)
        return false;
    if (!launcher->has_ended) {
        got = recv(launcher->socket, &launcher->wait_status, sizeof(launcher->wait_status),
                   MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return false;
        if (got != (ssize_t)sizeof(launcher->wait_status))
            launcher->wait_status = SIGKILL; /* the helper itself was killed */
        launcher->has_ended = true;
    }
    if (WIFEXITED(launcher->wait_status))
        snprintf(how_out, bytes, "the command that runs the workers has ended with exit code %d",
                 WEXITSTATUS(launcher->wait_status));
    else
        snprintf(how_out, bytes, "the command that runs the workers was ended by signal %d",
                 WTERMSIG(launcher->wait_status));
    return true;
}

void launcher_close(struct launcher *launcher, int64_t grace_ms)
{
    const int64_t until_ms = clock_monotonic_ms() + grace_ms;
    char how[128];

    if (launcher == NULL)
        return;
    while (launcher->is_running && !launcher_has_ended(launcher, how, sizeof(how)) &&
           clock_monotonic_ms() < until_ms)
        clock_sleep_ms(POLL_MS);
    close(launcher->socket);
    while (waitpid(launcher->helper, NULL, 0) < 0 && errno == EINTR)
        continue;
    free(launcher);
}
