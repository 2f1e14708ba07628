/* One function per command (see command.c for the table): talks to the server, prints, and returns
 * the exit code. `arguments` are the positional ones, as many as the command takes. */
#ifndef CLIENT_COMMANDS_H
#define CLIENT_COMMANDS_H

#include "client/command.h"

#define COMMAND_FUNCTION(name)                                                                     \
    int command_##name(struct session *session, const struct client_options *options,              \
                       char *const *arguments)

COMMAND_FUNCTION(put);      /* put.c */
COMMAND_FUNCTION(ask);      /* ask.c */
COMMAND_FUNCTION(generate); /* ask.c */
COMMAND_FUNCTION(ls);       /* documents.c */
COMMAND_FUNCTION(get);
COMMAND_FUNCTION(watch);
COMMAND_FUNCTION(pin);
COMMAND_FUNCTION(unpin);
COMMAND_FUNCTION(rm);
COMMAND_FUNCTION(tokenize); /* service.c */
COMMAND_FUNCTION(info);
COMMAND_FUNCTION(health);
COMMAND_FUNCTION(drain);

#endif
