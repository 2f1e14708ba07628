/* `tca`, the client: reads the command line, connects, runs one command. */
#include "client/command.h"
#include "client/session.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static int fail_usage(const struct command *command, const char *text)
{
    fprintf(stderr, "tca: %s\ntry: %s --help\n", text, command != NULL ? command->program : "tca");
    return EXIT_USAGE;
}

static enum tca_status choose_server(struct client_options *options)
{
    const char *server = getenv("TCA_SERVER");

    if (options->server != NULL)
        return TCA_OK;
    options->server = strdup(server != NULL && server[0] != '\0' ? server : "127.0.0.1:50051");
    return options->server != NULL ? TCA_OK : TCA_ERR_NO_MEMORY;
}

static int run(struct command_line *line)
{
    struct session session = {0};
    struct tca_error error = {0};
    enum tca_status status = choose_server(&line->options);
    int code;

    if (status == TCA_OK)
        status = session_open(&session, &line->options, &error);
    if (status == TCA_ERR_INVALID) {
        code = fail_usage(line->command, error.text);
    } else if (status != TCA_OK) {
        fprintf(stderr, "tca: %s\n", error.text[0] != '\0' ? error.text : tca_status_text(status));
        code = EXIT_REFUSED;
    } else {
        code = line->command->run(&session, &line->options, line->arguments.positional);
    }
    session_close(&session);
    return code;
}

int main(int argc, char **argv)
{
    struct command_line line;
    struct tca_error error = {0};
    int code = EXIT_DONE;

    signal(SIGPIPE, SIG_IGN); /* a write then fails, and the question is cancelled */
    if (command_line_parse(argc, argv, &line, &error) != TCA_OK)
        return fail_usage(line.command, error.text);
    if (line.arguments.help != SETTINGS_HELP_NONE)
        command_print_help(line.command, line.arguments.help, stdout);
    else
        code = run(&line);
    command_line_free(&line);
    return code;
}
