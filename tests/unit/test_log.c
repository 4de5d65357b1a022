/* SPDX-License-Identifier: Apache-2.0 */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/codec.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

static int read_end = -1;
static int write_end = -1;

static void open_pipe(void)
{
    int fds[2] = {-1, -1};

    CU_ASSERT_EQUAL_FATAL(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    read_end = fds[0];
    write_end = fds[1];
}

static void close_pipe(void)
{
    kms_log_setup(STDERR_FILENO, KMS_LOG_INFO, KMS_LOG_TEXT);
    (void)close(read_end);
    (void)close(write_end);
}

/* What is in the pipe, as text. */
static const char *drain(void)
{
    static char text[65536];
    size_t len = 0;
    ssize_t got;

    while ((got = read(read_end, text + len, sizeof(text) - 1 - len)) > 0) {
        len += (size_t)got;
    }
    text[len] = '\0';
    return text;
}

struct line_row {
    const char *name;
    const char *message;
    const char *value; /* of the field "v" */
    const char *text;  /* behind the time and level */
    const char *json;
};

static const struct line_row line_rows[] = {
    {"plain", "done", "x", "done v=x\n", "\"msg\":\"done\",\"v\":\"x\"}\n"},
    {"no field", "done", NULL, "done\n", "\"msg\":\"done\"}\n"},
    {"empty", "", "", " v=\"\"\n", "\"msg\":\"\",\"v\":\"\"}\n"},
    {"space", "a b", "a b", "a b v=\"a b\"\n", "\"msg\":\"a b\",\"v\":\"a b\"}\n"},
    {"forged line", "a\n2026 error x", "a\r\nb", "a\\n2026 error x v=\"a\\r\\nb\"\n",
     "\"msg\":\"a\\u000a2026 error x\",\"v\":\"a\\u000d\\u000ab\"}\n"},
    {"forged field", "m", "x uid=0", "m v=\"x uid=0\"\n", "\"msg\":\"m\",\"v\":\"x uid=0\"}\n"},
    {"quotes", "say \"hi\"", "\"\\", "say \"hi\" v=\"\\\"\\\\\"\n",
     "\"msg\":\"say \\\"hi\\\"\",\"v\":\"\\\"\\\\\"}\n"},
    {"controls", "\x1b[31m", "\x01\x7f", "\\x1b[31m v=\\x01\\x7f\n",
     "\"msg\":\"\\u001b[31m\",\"v\":\"\\u0001\\u007f\"}\n"},
    {"utf-8", "\xc3\xa4", "\xf0\x9f\x94\x91", "\xc3\xa4 v=\xf0\x9f\x94\x91\n",
     "\"msg\":\"\xc3\xa4\",\"v\":\"\xf0\x9f\x94\x91\"}\n"},
    {"not utf-8", "\xff!", "\xc3", "\\xff! v=\\xc3\n",
     "\"msg\":\"\xef\xbf\xbd!\",\"v\":\"\xef\xbf\xbd\"}\n"},
    {"equals", "m", "a=b", "m v=\"a=b\"\n", "\"msg\":\"m\",\"v\":\"a=b\"}\n"},
};

static void check_line(const struct line_row *row, enum kms_log_format format, const char *head,
                       const char *expected)
{
    const struct kms_log_field field = {"v", row->value};
    const char *got;

    kms_log_setup(write_end, KMS_LOG_INFO, format);
    kms_log_fields(KMS_LOG_WARN, &field, 1, "%s", row->message);
    got = drain();
    got = strstr(got, head);
    if (UNIT_CHECK(row->name, got != NULL)) {
        UNIT_CHECK(row->name, strcmp(got + strlen(head), expected) == 0);
    }
}

static void lines(void)
{
    open_pipe();
    for (size_t i = 0; i < UNIT_COUNT(line_rows); i++) {
        check_line(&line_rows[i], KMS_LOG_TEXT, "Z warn ", line_rows[i].text);
        check_line(&line_rows[i], KMS_LOG_JSON, "Z\",\"level\":\"warn\",", line_rows[i].json);
    }
    close_pipe();
}

static void json_begins_with_the_time(void)
{
    const char *got;

    open_pipe();
    kms_log_setup(write_end, KMS_LOG_INFO, KMS_LOG_JSON);
    kms_log(KMS_LOG_ERROR, "x %d", 5);
    got = drain();
    CU_ASSERT_EQUAL(strncmp(got, "{\"time\":\"20", 11), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(got, "Z\",\"level\":\"error\",\"msg\":\"x 5\"}\n"));
    close_pipe();
}

static void levels(void)
{
    open_pipe();
    for (int limit = KMS_LOG_ERROR; limit <= KMS_LOG_DEBUG; limit++) {
        kms_log_setup(write_end, (enum kms_log_level)limit, KMS_LOG_TEXT);
        for (int level = KMS_LOG_ERROR; level <= KMS_LOG_DEBUG; level++) {
            kms_log((enum kms_log_level)level, "x");
            CU_ASSERT_EQUAL(drain()[0] != '\0', level <= limit);
            CU_ASSERT_EQUAL(kms_log_enabled((enum kms_log_level)level), level <= limit);
        }
    }
    close_pipe();
}

static void errors(void)
{
    struct kms_error error = KMS_ERROR_INIT;

    open_pipe();
    kms_log_setup(write_end, KMS_LOG_INFO, KMS_LOG_TEXT);
    (void)kms_error_set_code(&error, KMS_E_AUTH, "CKR_PIN_INCORRECT", "the PIN is wrong");
    kms_log_error(KMS_LOG_ERROR, &error, "backend %s", "hsm");
    CU_ASSERT_PTR_NOT_NULL(strstr(drain(), "Z error backend hsm: the PIN is wrong class=auth "
                                           "code=CKR_PIN_INCORRECT\n"));
    kms_log_error(KMS_LOG_DEBUG, &error, "not enabled");
    CU_ASSERT_STRING_EQUAL(drain(), "");
    close_pipe();
}

/* All lines end, all JSON stays JSON (as far as quotes tell), whatever is too long. */
static void check_cut(enum kms_log_format format, const char *message, const char *value,
                      const char *tail)
{
    const struct kms_log_field fields[] = {{"a", value}, {"b", "last"}};
    const char *got;
    size_t len;

    kms_log_setup(write_end, KMS_LOG_INFO, format);
    kms_log_fields(KMS_LOG_INFO, fields, 2, "%s", message);
    got = drain();
    len = strlen(got);
    CU_ASSERT_TRUE(len > KMS_LOG_LINE_MAX / 2 && len <= KMS_LOG_LINE_MAX);
    CU_ASSERT_TRUE(len > strlen(tail) && strcmp(got + len - strlen(tail), tail) == 0);
    CU_ASSERT_TRUE(kms_utf8_valid(kms_span_str(got)));
    CU_ASSERT_PTR_EQUAL(strchr(got, '\n'), got + len - 1);
}

static void long_lines_are_cut(void)
{
    static char quotes[3 * KMS_LOG_LINE_MAX];
    static char euros[3 * KMS_LOG_LINE_MAX + 1];

    memset(quotes, '"', sizeof(quotes) - 1);
    for (size_t i = 0; i + 3 < sizeof(euros); i += 3) {
        memcpy(euros + i, "\xe2\x82\xac", 3);
    }
    open_pipe();
    check_cut(KMS_LOG_TEXT, euros, "x", " [cut]\n");
    check_cut(KMS_LOG_TEXT, "x", quotes, "\\\"\" [cut]\n");
    check_cut(KMS_LOG_JSON, quotes, "x", "\\\"\",\"cut\":true}\n");
    check_cut(KMS_LOG_JSON, "x", euros, "\xe2\x82\xac\",\"cut\":true}\n");
    close_pipe();
}

/* Every length around the ceiling: the tail always fits. */
static void lines_near_the_ceiling(void)
{
    static char message[KMS_LOG_LINE_MAX];

    open_pipe();
    for (size_t len = KMS_LOG_LINE_MAX - 150; len < KMS_LOG_LINE_MAX - 1; len++) {
        const struct kms_log_field fields[] = {{"key", "a b"}, {"k", "\""}};
        const char *got;

        memset(message, 'm', len);
        message[len] = '\0';
        for (int format = KMS_LOG_TEXT; format <= KMS_LOG_JSON; format++) {
            kms_log_setup(write_end, KMS_LOG_INFO, (enum kms_log_format)format);
            kms_log_fields(KMS_LOG_INFO, fields, 2, "%s", message);
            got = drain();
            CU_ASSERT_TRUE(strlen(got) <= KMS_LOG_LINE_MAX);
            CU_ASSERT_TRUE(got[0] != '\0' && got[strlen(got) - 1] == '\n');
            CU_ASSERT_TRUE(format == KMS_LOG_TEXT || strcmp(got + strlen(got) - 2, "}\n") == 0);
        }
    }
    close_pipe();
}

static void fill_pipe(void)
{
    char block[4096];

    memset(block, '.', sizeof(block));
    while (write(write_end, block, sizeof(block)) > 0) {
    }
    while (write(write_end, block, 1) > 0) {
    }
}

/* A reader that sleeps costs lines and a little time, never the daemon. */
static void full_pipe_loses_lines(void)
{
    open_pipe();
    kms_log_setup(write_end, KMS_LOG_INFO, KMS_LOG_TEXT);
    fill_pipe();
    errno = EXDEV;
    kms_log(KMS_LOG_INFO, "lost");
    CU_ASSERT_EQUAL(errno, EXDEV);
    while (drain()[0] != '\0') {
    }
    kms_log(KMS_LOG_INFO, "seen");
    CU_ASSERT_PTR_NOT_NULL(strstr(drain(), "Z warn 1 log lines dropped\n20"));
    kms_log(KMS_LOG_INFO, "seen");
    CU_ASSERT_PTR_NULL(strstr(drain(), "dropped"));
    close_pipe();
}

/* As standard error is: the write end blocks. The test itself reads without blocking. */
static void open_blocking(bool is_socket)
{
    int fds[2] = {-1, -1};

    CU_ASSERT_EQUAL_FATAL(is_socket ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)
                                    : pipe2(fds, O_CLOEXEC),
                          0);
    read_end = fds[0];
    write_end = fds[1];
    CU_ASSERT_EQUAL(fcntl(read_end, F_SETFL, O_NONBLOCK), 0);
}

static void fill_blocking(void)
{
    int flags = fcntl(write_end, F_GETFL);

    CU_ASSERT_EQUAL(fcntl(write_end, F_SETFL, flags | O_NONBLOCK), 0);
    fill_pipe();
    CU_ASSERT_EQUAL(fcntl(write_end, F_SETFL, flags), 0);
}

/* Nobody reads from a descriptor that blocks: one short wait, then none, and the gap is told. */
static void a_blocking_reader_loses_lines(void)
{
    static const struct {
        const char *name;
        bool is_socket;
        enum kms_log_format format;
        const char *note;
    } rows[] = {
        {"pipe", false, KMS_LOG_TEXT, "Z warn 500 log lines dropped\n20"},
        {"pipe, json", false, KMS_LOG_JSON,
         "\"level\":\"warn\",\"msg\":\"500 log lines dropped\"}\n{"},
        {"socket", true, KMS_LOG_TEXT, "Z warn 500 log lines dropped\n20"},
    };

    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        const char *got;
        const char *note;
        uint64_t began;

        open_blocking(rows[i].is_socket);
        kms_log_setup(write_end, KMS_LOG_INFO, rows[i].format);
        fill_blocking();
        (void)alarm(60); /* it would hang */
        began = kms_now_ns();
        for (int line = 0; line < 500; line++) {
            kms_log(KMS_LOG_INFO, "lost %d", line);
        }
        UNIT_CHECK(rows[i].name, kms_now_ns() - began < 5 * KMS_NS_PER_S);
        (void)alarm(0);
        UNIT_CHECK(rows[i].name, (fcntl(write_end, F_GETFL) & O_NONBLOCK) == 0);
        for (got = drain(); got[0] != '\0'; got = drain()) {
            UNIT_CHECK(rows[i].name, strstr(got, "lost") == NULL);
        }
        kms_log(KMS_LOG_INFO, "seen");
        got = drain();
        note = strstr(got, rows[i].note);
        UNIT_CHECK(rows[i].name, note != NULL && strstr(note, "seen") != NULL);
        close_pipe();
    }
}

#define WRITERS      4
#define LINES_EACH   300
#define LINE_PADDING 900

static void *write_lines(void *arg)
{
    (void)arg;
    for (int i = 0; i < LINES_EACH; i++) {
        kms_log(KMS_LOG_INFO, "line %0*d.", LINE_PADDING, i);
    }
    return NULL;
}

/* Of the lines in @text: those that are whole, and those that the notes tell of. */
static void count_lines(const char *text, unsigned *whole, unsigned *dropped)
{
    for (const char *end; (end = strchr(text, '\n')) != NULL; text = end + 1) {
        const char *note = strstr(text, "Z warn ");

        if (note != NULL && note < end) {
            *dropped += (unsigned)strtoul(note + 7, NULL, 10);
        } else {
            const char *line = strstr(text, "Z info line ");

            CU_ASSERT_TRUE(line != NULL && line + 12 + LINE_PADDING + 1 == end);
            (*whole)++;
        }
    }
    CU_ASSERT_EQUAL(text[0], '\0');
}

/* The reader sleeps for longer than anybody waits, and reads some at a time. */
static void writers_do_not_block_each_other(void)
{
    static char text[2 * WRITERS * LINES_EACH * (LINE_PADDING + 64)];
    pthread_t threads[WRITERS];
    unsigned whole = 0;
    unsigned dropped = 0;
    size_t len = 0;
    ssize_t got;

    open_blocking(false);
    kms_log_setup(write_end, KMS_LOG_INFO, KMS_LOG_TEXT);
    (void)alarm(60);
    for (size_t i = 0; i < WRITERS; i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, write_lines, NULL), 0);
    }
    for (int i = 0; i < 40; i++) {
        (void)poll(NULL, 0, i % 10 == 0 ? 150 : 5);
        got = read(read_end, text + len, 10000);
        len += got > 0 ? (size_t)got : 0;
    }
    for (size_t i = 0; i < WRITERS; i++) {
        (void)pthread_join(threads[i], NULL); /* though nobody reads */
    }
    (void)alarm(0);
    while ((got = read(read_end, text + len, sizeof(text) - 1 - len)) > 0) {
        len += (size_t)got;
    }
    kms_log(KMS_LOG_INFO, "line %0*d.", LINE_PADDING, 0); /* brings the last note */
    while ((got = read(read_end, text + len, sizeof(text) - 1 - len)) > 0) {
        len += (size_t)got;
    }
    text[len] = '\0';
    count_lines(text, &whole, &dropped);
    CU_ASSERT_TRUE(whole > 0 && dropped > 0);
    CU_ASSERT_EQUAL(whole + dropped, WRITERS * LINES_EACH + 1);
    close_pipe();
}

static void *make_room(void *arg)
{
    char byte[4096];

    (void)poll(NULL, 0, 20);
    *(bool *)arg = read(read_end, byte, sizeof(byte)) > 0;
    return NULL;
}

static void full_pipe_is_waited_for(void)
{
    pthread_t thread;
    bool made = false;
    const char *got;

    open_pipe();
    kms_log_setup(write_end, KMS_LOG_INFO, KMS_LOG_TEXT);
    fill_pipe();
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, make_room, &made), 0);
    kms_log(KMS_LOG_INFO, "patience");
    (void)pthread_join(thread, NULL);
    CU_ASSERT_TRUE(made);
    for (got = drain(); got[0] != '\0' && strstr(got, "patience") == NULL; got = drain()) {
    }
    CU_ASSERT_PTR_NOT_NULL(strstr(got, "Z info patience\n"));
    close_pipe();
}

/* A line that lost its end is not glued to the next one. */
static void a_torn_line_is_ended(void)
{
    const char *path = scratch_file("log", 0600, "", 0);
    int fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
    char text[512] = "";

    kms_log_setup(fd, KMS_LOG_INFO, KMS_LOG_TEXT);
    scratch_limit(40);
    kms_log(KMS_LOG_INFO, "%060d", 0);
    scratch_limit(0);
    kms_log(KMS_LOG_INFO, "whole");
    kms_log(KMS_LOG_INFO, "again");
    kms_log_setup(STDERR_FILENO, KMS_LOG_INFO, KMS_LOG_TEXT);
    CU_ASSERT_TRUE(pread(fd, text, sizeof(text) - 1, 0) > 40);
    CU_ASSERT_EQUAL(text[40], '\n');
    CU_ASSERT_PTR_NOT_NULL(strstr(text + 41, "Z info whole\n20"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text + 41, "Z info again\n"));
    (void)close(fd);
    (void)unlink(path);
}

static void a_bad_descriptor_is_no_end(void)
{
    uint64_t began = kms_now_ns();

    errno = EXDEV;
    kms_log_setup(-1, KMS_LOG_INFO, KMS_LOG_TEXT);
    for (int i = 0; i < 100; i++) {
        kms_log(KMS_LOG_ERROR, "nobody hears");
    }
    CU_ASSERT_EQUAL(errno, EXDEV);
    CU_ASSERT_TRUE(kms_now_ns() - began < 5 * KMS_NS_PER_S); /* and nobody is waited for */
    kms_log_setup(STDERR_FILENO, KMS_LOG_INFO, KMS_LOG_TEXT);
}

static void words(void)
{
    static const char *const levels_in_order[] = {"error", "warn", "info", "debug"};
    enum kms_log_level level = KMS_LOG_DEBUG;
    enum kms_log_format format = KMS_LOG_TEXT;

    for (int i = 0; i < 4; i++) {
        CU_ASSERT_EQUAL(kms_log_parse_level(levels_in_order[i], &level), KMS_OK);
        CU_ASSERT_EQUAL((int)level, i);
    }
    CU_ASSERT_EQUAL(kms_log_parse_level("INFO", &level), KMS_E_INVALID);
    CU_ASSERT_EQUAL(kms_log_parse_level("", &level), KMS_E_INVALID);
    CU_ASSERT_EQUAL(level, KMS_LOG_DEBUG);
    CU_ASSERT_EQUAL(kms_log_parse_format("json", &format), KMS_OK);
    CU_ASSERT_EQUAL(format, KMS_LOG_JSON);
    CU_ASSERT_EQUAL(kms_log_parse_format("text", &format), KMS_OK);
    CU_ASSERT_EQUAL(format, KMS_LOG_TEXT);
    CU_ASSERT_EQUAL(kms_log_parse_format("xml", &format), KMS_E_INVALID);
}

int main(void)
{
    static const struct unit_test tests[] = {
        {"lines", lines},
        {"json begins with the time", json_begins_with_the_time},
        {"levels", levels},
        {"errors", errors},
        {"long lines are cut", long_lines_are_cut},
        {"lines near the ceiling", lines_near_the_ceiling},
        {"full pipe loses lines", full_pipe_loses_lines},
        {"full pipe is waited for", full_pipe_is_waited_for},
        {"a blocking reader loses lines", a_blocking_reader_loses_lines},
        {"writers do not block each other", writers_do_not_block_each_other},
        {"a torn line is ended", a_torn_line_is_ended},
        {"a bad descriptor is no end", a_bad_descriptor_is_no_end},
        {"words", words},
    };

    int result;

    scratch_init();
    result = unit_main("test_log", tests, UNIT_COUNT(tests));
    scratch_done();
    return result;
}
