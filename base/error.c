#include "base/error.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

enum tca_status tca_fail(struct tca_error *error, enum tca_status status, const char *format, ...)
{
    va_list arguments;

    if (error == NULL)
        return status;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof(error->text), format, arguments);
    va_end(arguments);
    error->text[utf8_whole_bytes(error->text, strlen(error->text))] = '\0';
    for (char *c = error->text; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return status;
}
