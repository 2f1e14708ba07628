/* tca-coordinator: reads its settings and runs the supervisor. */
#include "base/log.h"
#include "coordinator/options.h"
#include "coordinator/supervisor.h"

#include <stdio.h>

enum { EXIT_USAGE = 2 };

int main(int argc, char **argv)
{
    struct coordinator_options options;
    struct settings_arguments arguments;
    struct tca_error error;
    enum tca_status status;

    if (settings_load(&options_table, argc, argv, &options, &arguments, &error) != TCA_OK) {
        fprintf(stderr, "tca-coordinator: %s\n", error.text);
        return EXIT_USAGE;
    }
    if (arguments.help != SETTINGS_HELP_NONE) {
        settings_print_help(&options_table, arguments.help, stdout);
        settings_free(&options_table, &options, &arguments);
        return 0;
    }
    log_init("coordinator", (enum log_level)options.log_level);
    settings_print(&options_table, &options, stderr);
    status = supervisor_run(&options);
    settings_free(&options_table, &options, &arguments);
    return status == TCA_OK ? 0 : 1;
}
