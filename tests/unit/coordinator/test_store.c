#include "tests/support/check.h"

#include "coordinator/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    char folder[64];
    struct store *store;
    struct tca_error error;
};

static int make(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    strcpy(fixture->folder, "/tmp/tca-test-store-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    assert_int_equal(store_open(fixture->folder, &fixture->store, &fixture->error), TCA_OK);
    *state = fixture;
    return 0;
}

static int clean(void **state)
{
    struct fixture *fixture = *state;
    char command[192];

    store_close(fixture->store);
    snprintf(command, sizeof(command), "chmod -R u+rwx %s && rm -rf %s", fixture->folder,
             fixture->folder);
    assert_int_equal(system(command), 0);
    free(fixture);
    return 0;
}

static void reopen(struct fixture *fixture)
{
    store_close(fixture->store);
    fixture->store = NULL;
    assert_int_equal(store_open(fixture->folder, &fixture->store, &fixture->error), TCA_OK);
}

static void create(struct fixture *fixture, const char *id, const char *meta)
{
    struct bytes text = {0};

    assert_int_equal(bytes_append_text(&text, meta), TCA_OK);
    assert_int_equal(store_create(fixture->store, id, &text, &fixture->error), TCA_OK);
    bytes_free(&text);
}

/* What a visit says of the one document there is. */
struct found {
    int documents;
    char id[64], meta[64];
    int64_t durable_bytes, content_bytes;
};

static bool note(void *context, const struct store_entry *entry)
{
    struct found *found = context;

    found->documents++;
    snprintf(found->id, sizeof(found->id), "%s", entry->id);
    snprintf(found->meta, sizeof(found->meta), "%.*s",
             entry->meta == NULL ? 1 : (int)entry->meta->size,
             entry->meta == NULL ? "-" : (const char *)entry->meta->data);
    found->durable_bytes = entry->durable_bytes;
    found->content_bytes = entry->content_bytes;
    return true;
}

static struct found visit(struct fixture *fixture)
{
    struct found found = {0};

    assert_int_equal(store_visit(fixture->store, note, &found, &fixture->error), TCA_OK);
    return found;
}

/* A file under the folder, with the name relative to it. */
static void write_file(const struct fixture *fixture, const char *name, const char *text)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", fixture->folder, name);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    fclose(file);
}

static void what_was_acknowledged_is_there_after_a_restart(void **state)
{
    struct fixture *fixture = *state;
    struct bytes content = {0};
    struct found found;

    create(fixture, "book", "{}");
    assert_int_equal(store_append(fixture->store, "book", 0, "Hello, ", 7, NULL), TCA_OK);
    assert_int_equal(store_append(fixture->store, "book", 7, "world", 5, NULL), TCA_OK);
    reopen(fixture);
    found = visit(fixture);
    assert_int_equal(found.documents, 1);
    assert_string_equal(found.id, "book");
    assert_string_equal(found.meta, "{}");
    assert_int_equal(found.durable_bytes, 12);
    assert_int_equal(found.content_bytes, 12);
    assert_int_equal(store_read(fixture->store, "book", 12, &content, NULL), TCA_OK);
    assert_memory_equal(content.data, "Hello, world", 12);
    bytes_free(&content);
}

static void bytes_that_were_not_acknowledged_are_written_over(void **state)
{
    struct fixture *fixture = *state;
    struct bytes content = {0};

    create(fixture, "book", "{}");
    assert_int_equal(store_append(fixture->store, "book", 0, "Hello", 5, NULL), TCA_OK);
    /* As after a crash between the write and its acknowledgement. */
    write_file(fixture, "documents/book/content", "HelloXXXXXXXXX");
    assert_int_equal(visit(fixture).durable_bytes, 5);
    assert_int_equal(store_append(fixture->store, "book", 5, "!", 1, NULL), TCA_OK);
    assert_int_equal(visit(fixture).content_bytes, 6);
    assert_int_equal(store_read(fixture->store, "book", 6, &content, NULL), TCA_OK);
    assert_memory_equal(content.data, "Hello!", 6);
    bytes_free(&content);
}

static void metadata_is_replaced_as_a_whole(void **state)
{
    struct fixture *fixture = *state;
    struct bytes meta = {0};

    create(fixture, "book", "{\"a\":1}");
    assert_int_equal(bytes_append_text(&meta, "{\"b\":2}"), TCA_OK);
    assert_int_equal(store_save(fixture->store, "book", &meta, &fixture->error), TCA_OK);
    /* As after a crash in the middle of the next save. */
    write_file(fixture, "documents/book/meta.json.new", "{\"c");
    reopen(fixture);
    assert_string_equal(visit(fixture).meta, "{\"b\":2}");
    assert_int_equal(store_save(fixture->store, "none", &meta, &fixture->error), TCA_ERR_IO);
    bytes_free(&meta);
}

static void a_document_is_made_once_and_removed_whole(void **state)
{
    struct fixture *fixture = *state;
    struct bytes meta = {0};
    struct bytes content = {0};

    create(fixture, "book", "{}");
    assert_int_equal(bytes_append_text(&meta, "{}"), TCA_OK);
    assert_int_equal(store_create(fixture->store, "book", &meta, &fixture->error), TCA_ERR_EXISTS);
    assert_int_equal(store_append(fixture->store, "book", 0, "x", 1, NULL), TCA_OK);
    assert_int_equal(store_remove(fixture->store, "book", &fixture->error), TCA_OK);
    assert_int_equal(visit(fixture).documents, 0);
    assert_int_equal(store_read(fixture->store, "book", 1, &content, &fixture->error),
                     TCA_ERR_DATA_LOSS);
    assert_int_equal(store_remove(fixture->store, "book", &fixture->error), TCA_OK);
    create(fixture, "book", "{}");
    assert_int_equal(visit(fixture).content_bytes, -1);
    bytes_free(&meta);
}

static void a_half_made_document_is_gone_after_a_restart(void **state)
{
    struct fixture *fixture = *state;
    char path[128];

    snprintf(path, sizeof(path), "%s/scratch/book", fixture->folder);
    assert_int_equal(mkdir(path, 0700), 0);
    write_file(fixture, "scratch/book/meta.json", "{}");
    write_file(fixture, "scratch/book/content", "old");
    reopen(fixture);
    assert_int_equal(access(path, F_OK), -1);
    create(fixture, "book", "{}");
    assert_int_equal(visit(fixture).content_bytes, -1);
}

static void damage_is_seen(void **state)
{
    struct fixture *fixture = *state;
    struct bytes content = {0};
    char path[128];

    create(fixture, "book", "{}");
    assert_int_equal(store_append(fixture->store, "book", 0, "Hello", 5, NULL), TCA_OK);
    write_file(fixture, "documents/book/content", "Hel");
    write_file(fixture, "documents/book/durable", "x");
    snprintf(path, sizeof(path), "%s/documents/book/meta.json", fixture->folder);
    assert_int_equal(unlink(path), 0);
    assert_string_equal(visit(fixture).meta, "-");
    assert_int_equal(visit(fixture).durable_bytes, -1);
    assert_int_equal(store_read(fixture->store, "book", 5, &content, &fixture->error),
                     TCA_ERR_DATA_LOSS);
    assert_non_null(strstr(fixture->error.text, "3 bytes, 5 were acknowledged"));
    bytes_free(&content);
}

static void without_descriptors_nothing_is_lost(void **state)
{
    struct fixture *fixture = *state;
    struct bytes content = {0};
    struct rlimit limit, none;
    enum tca_status status;

    create(fixture, "book", "{}");
    assert_int_equal(store_append(fixture->store, "book", 0, "Hello", 5, NULL), TCA_OK);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    status = store_read(fixture->store, "book", 5, &content, &fixture->error);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0); /* before what may end the test */
    assert_int_equal(status, TCA_ERR_BUSY);
    assert_int_equal(store_read(fixture->store, "book", 5, &content, NULL), TCA_OK);
    assert_memory_equal(content.data, "Hello", 5);
    bytes_free(&content);
}

static void a_fifo_in_a_file_s_place_is_damage(void **state)
{
    static const char *const names[] = {"meta.json", "durable", "content"};
    struct fixture *fixture = *state;
    struct bytes content = {0};
    char path[128];

    create(fixture, "book", "{}");
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        snprintf(path, sizeof(path), "%s/documents/book/%s", fixture->folder, names[i]);
        unlink(path);
        assert_int_equal(mkfifo(path, 0600), 0);
    }
    alarm(60); /* the reads would wait for ever */
    assert_string_equal(visit(fixture).meta, "-");
    assert_int_equal(visit(fixture).durable_bytes, -1);
    assert_int_equal(visit(fixture).content_bytes, -1);
    assert_int_equal(store_read(fixture->store, "book", 5, &content, &fixture->error),
                     TCA_ERR_DATA_LOSS);
    alarm(0);
    bytes_free(&content);
}

static void one_coordinator_at_a_time(void **state)
{
    struct fixture *fixture = *state;
    struct store *second;

    assert_int_equal(store_open(fixture->folder, &second, &fixture->error), TCA_ERR_BUSY);
    assert_non_null(strstr(fixture->error.text, "another coordinator"));
}

static void every_start_has_a_later_epoch(void **state)
{
    struct fixture *fixture = *state;
    const uint64_t first = store_epoch(fixture->store);

    reopen(fixture);
    assert_int_equal(store_epoch(fixture->store), first + 1);
    reopen(fixture);
    assert_int_equal(store_epoch(fixture->store), first + 2);
}

static void a_damaged_epoch_does_not_start_again(void **state)
{
    static const char *const texts[] = {"", "\n", "noise", "-1\n", "7 8\n", "4294967296\n"};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        store_close(fixture->store);
        fixture->store = NULL;
        write_file(fixture, "epoch", texts[i]);
        assert_int_equal(store_open(fixture->folder, &fixture->store, &fixture->error),
                         TCA_ERR_INVALID);
        assert_non_null(strstr(fixture->error.text, "epoch is \""));
    }
    write_file(fixture, "epoch", "41\n");
    reopen(fixture);
    assert_int_equal(store_epoch(fixture->store), 42);
}

static void a_folder_that_cannot_be_made_is_named(void **state)
{
    struct fixture *fixture = *state;
    char path[128];
    struct store *store;

    write_file(fixture, "file", "");
    snprintf(path, sizeof(path), "%s/file/below", fixture->folder);
    assert_int_equal(store_open(path, &store, &fixture->error), TCA_ERR_IO);
    assert_non_null(strstr(fixture->error.text, "file/below"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, clean)
    const struct CMUnitTest tests[] = {
        TEST(what_was_acknowledged_is_there_after_a_restart),
        TEST(bytes_that_were_not_acknowledged_are_written_over),
        TEST(metadata_is_replaced_as_a_whole),
        TEST(a_document_is_made_once_and_removed_whole),
        TEST(a_half_made_document_is_gone_after_a_restart),
        TEST(damage_is_seen),
        TEST(without_descriptors_nothing_is_lost),
        TEST(a_fifo_in_a_file_s_place_is_damage),
        TEST(one_coordinator_at_a_time),
        TEST(every_start_has_a_later_epoch),
        TEST(a_damaged_epoch_does_not_start_again),
        TEST(a_folder_that_cannot_be_made_is_named),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
