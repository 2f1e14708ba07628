#include "client/format.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void format_count(uint64_t count, char text_out[FORMAT_BYTES])
{
    char digits[24];
    int length = snprintf(digits, sizeof(digits), "%" PRIu64, count);
    int at = 0;

    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            text_out[at++] = ',';
        text_out[at++] = digits[i];
    }
    text_out[at] = '\0';
}

void format_size(uint64_t bytes, char text_out[FORMAT_BYTES])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes / 1024;
    size_t unit = 0;

    if (bytes < 1024) {
        snprintf(text_out, FORMAT_BYTES, "%" PRIu64 " B", bytes);
        return;
    }
    /* From 1023.95 on the print would round to 1024.0. */
    while (value >= 1023.95 && unit + 1 < sizeof(units) / sizeof(*units)) {
        value /= 1024;
        unit++;
    }
    snprintf(text_out, FORMAT_BYTES, "%.1f %s", value, units[unit]);
}

void format_rate(double per_s, char text_out[FORMAT_BYTES])
{
    if (!(per_s > 0)) /* NaN too */
        snprintf(text_out, FORMAT_BYTES, "0");
    else if (per_s < 9.995)
        snprintf(text_out, FORMAT_BYTES, "%.2f", per_s);
    else if (per_s < 99.95)
        snprintf(text_out, FORMAT_BYTES, "%.1f", per_s);
    else
        format_count(per_s < 1e18 ? (uint64_t)(per_s + 0.5) : (uint64_t)1e18, text_out);
}

void format_duration(uint64_t ms, char text_out[FORMAT_BYTES])
{
    uint64_t seconds = ms / 1000;

    if (ms < 1000)
        snprintf(text_out, FORMAT_BYTES, "%" PRIu64 " ms", ms);
    else if (ms < 60000)
        snprintf(text_out, FORMAT_BYTES, "%" PRIu64 ".%" PRIu64 " s", seconds, ms % 1000 / 100);
    else if (seconds < 3600)
        snprintf(text_out, FORMAT_BYTES, "%" PRIu64 ":%02" PRIu64, seconds / 60, seconds % 60);
    else
        snprintf(text_out, FORMAT_BYTES, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, seconds / 3600,
                 seconds / 60 % 60, seconds % 60);
}

void format_time(int64_t unix_s, char text_out[FORMAT_BYTES])
{
    time_t when = (time_t)unix_s;
    struct tm parts;

    if (unix_s <= 0 || gmtime_r(&when, &parts) == NULL ||
        strftime(text_out, FORMAT_BYTES, "%Y-%m-%d %H:%M:%SZ", &parts) == 0)
        snprintf(text_out, FORMAT_BYTES, "-");
}

enum tca_status format_escaped(struct bytes *out, const void *text, size_t bytes,
                               enum format_breaks breaks)
{
    const char *at = text, *end = at + bytes;

    while (at < end) {
        unsigned char c = (unsigned char)at[0];
        size_t length = utf8_character_bytes(at, (size_t)(end - at));
        char escape[8] = "";

        if (length == 0 || c == 0x7f ||
            (c < 0x20 && (breaks == FORMAT_ESCAPE_BREAKS || (c != '\n' && c != '\t'))))
            snprintf(escape, sizeof(escape), "\\x%02x", c);
        else if (length == 2 && c == 0xc2 && (unsigned char)at[1] < 0xa0)
            snprintf(escape, sizeof(escape), "\\u%04x", (unsigned char)at[1]); /* U+0080..U+009F */
        length = length == 0 ? 1 : length;
        if (escape[0] != '\0')
            TCA_TRY(bytes_append_text(out, escape));
        else
            TCA_TRY(bytes_append(out, at, length));
        at += length;
    }
    return TCA_OK;
}
