/* SPDX-License-Identifier: Apache-2.0 */
#include "common/yaml.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "common/codec.h"
#include "common/conf.h"

#define KEY_SHOWN_MAX 64 /* bytes of a key in an error text */

/* A mapping or sequence that is open. */
struct frame {
    bool is_sequence;
    bool key_is_next; /* of a mapping */
    size_t index;     /* of a sequence's next entry */
    size_t path_len;  /* of the path of the mapping or sequence itself */
};

struct walk {
    const char *name;
    const char *content;
    size_t len;
    yaml_parser_t parser;
    yaml_event_t event; /* deleted by the next step */
    struct frame frames[KMS_CONF_DEPTH_MAX];
    size_t depth;
    size_t documents;
    bool is_key;                  /* the event is a mapping's key */
    char path[KMS_YAML_PATH_MAX]; /* of the event */
    size_t path_len;
};

static size_t line_of_offset(const char *content, size_t len, size_t offset)
{
    size_t line = 1;

    for (size_t i = 0; i < offset && i < len; i++) {
        line += content[i] == '\n' ? 1 : 0;
    }
    return line;
}

static size_t walk_line(const struct walk *walk)
{
    return walk->event.start_mark.line + 1;
}

static enum kms_status walk_error(const struct walk *walk, const char *what, struct kms_error *err)
{
    return kms_error_set(err, KMS_E_INVALID, "%s:%zu: %s%s%s", walk->name, walk_line(walk),
                         walk->path, walk->path_len > 0 ? ": " : "", what);
}

static void path_cut(struct walk *walk, size_t len)
{
    walk->path_len = len;
    walk->path[len] = '\0';
}

static void path_append(struct walk *walk, const char *text)
{
    size_t room = sizeof(walk->path) - walk->path_len;
    int length = snprintf(walk->path + walk->path_len, room, "%s", text);

    if (length > 0) {
        walk->path_len += (size_t)length < room ? (size_t)length : room - 1;
    }
}

static void path_append_key(struct walk *walk, const char *key)
{
    char shown[KEY_SHOWN_MAX + 2];

    (void)snprintf(shown, sizeof(shown), "%s%s", walk->path_len > 0 ? "." : "", key);
    path_append(walk, shown);
}

static void path_append_index(struct walk *walk, size_t index)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "[%zu]", index);
    path_append(walk, text);
}

/* A reader's error (encoding, control character) knows the byte, all others know the line. */
static enum kms_status parser_error(const struct walk *walk, struct kms_error *err)
{
    const yaml_parser_t *parser = &walk->parser;
    size_t line = parser->problem_mark.line + 1;

    if (parser->error == YAML_MEMORY_ERROR) {
        return kms_error_set(err, KMS_E_NOMEM, "%s: no memory to read it", walk->name);
    }
    if (parser->error == YAML_READER_ERROR) {
        line = line_of_offset(walk->content, walk->len, parser->problem_offset);
    }
    return kms_error_set(err, KMS_E_INVALID, "%s:%zu: not YAML: %s%s%s", walk->name, line,
                         parser->problem == NULL ? "cannot be read" : parser->problem,
                         parser->context == NULL ? "" : " ",
                         parser->context == NULL ? "" : parser->context);
}

static enum kms_status push_frame(struct walk *walk, bool is_sequence, struct kms_error *err)
{
    if (walk->depth == KMS_CONF_DEPTH_MAX) {
        return walk_error(walk, "nested too deeply", err);
    }
    walk->frames[walk->depth++] = (struct frame){
        .is_sequence = is_sequence,
        .key_is_next = !is_sequence,
        .path_len = walk->path_len,
    };
    return KMS_OK;
}

static void pop_frame(struct walk *walk)
{
    walk->depth--;
    path_cut(walk, walk->frames[walk->depth].path_len);
}

/* The event is a key, or a value: sets the path to it. */
static enum kms_status enter_node(struct walk *walk, struct kms_error *err)
{
    struct frame *frame = walk->depth > 0 ? &walk->frames[walk->depth - 1] : NULL;

    walk->is_key = false;
    if (frame == NULL) {
        return KMS_OK;
    }
    if (frame->is_sequence) {
        path_cut(walk, frame->path_len);
        path_append_index(walk, frame->index++);
        return KMS_OK;
    }
    walk->is_key = frame->key_is_next;
    frame->key_is_next = !frame->key_is_next;
    if (walk->is_key) {
        path_cut(walk, frame->path_len);
        if (walk->event.type != YAML_SCALAR_EVENT) {
            return walk_error(walk, "a key must be plain text", err);
        }
        path_append_key(walk, (const char *)walk->event.data.scalar.value);
    }
    return KMS_OK;
}

static enum kms_status place_event(struct walk *walk, struct kms_error *err)
{
    enum kms_status status;

    switch (walk->event.type) {
    case YAML_SCALAR_EVENT:
    case YAML_ALIAS_EVENT:
        return enter_node(walk, err);
    case YAML_MAPPING_START_EVENT:
    case YAML_SEQUENCE_START_EVENT:
        status = enter_node(walk, err);
        if (status != KMS_OK) {
            return status;
        }
        return push_frame(walk, walk->event.type == YAML_SEQUENCE_START_EVENT, err);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        pop_frame(walk);
        return KMS_OK;
    case YAML_DOCUMENT_START_EVENT:
        walk->documents++;
        return KMS_OK;
    default:
        return KMS_OK;
    }
}

static enum kms_status walk_next(struct walk *walk, struct kms_error *err)
{
    yaml_event_delete(&walk->event);
    memset(&walk->event, 0, sizeof(walk->event));
    if (yaml_parser_parse(&walk->parser, &walk->event) == 0) {
        return parser_error(walk, err);
    }
    return place_event(walk, err);
}

static enum kms_status walk_init(struct walk *walk, const char *name, const char *content,
                                 size_t len, struct kms_error *err)
{
    memset(walk, 0, sizeof(*walk));
    walk->name = name;
    walk->content = content;
    walk->len = len;
    if (yaml_parser_initialize(&walk->parser) == 0) {
        return kms_error_set(err, KMS_E_NOMEM, "%s: no memory to read it", name);
    }
    yaml_parser_set_encoding(&walk->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&walk->parser, (const unsigned char *)content, len);
    return KMS_OK;
}

static void walk_done(struct walk *walk)
{
    yaml_event_delete(&walk->event);
    yaml_parser_delete(&walk->parser);
}

/* YAML 1.2.2 section 10.3.2 reads these as null, cyaml as text: nobody may guess. */
static bool is_null_word(const char *text)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(text, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

static enum kms_status check_scalar(const struct walk *walk, struct kms_error *err)
{
    const char *value = (const char *)walk->event.data.scalar.value;

    if (strlen(value) != walk->event.data.scalar.length) {
        return walk_error(walk, "holds a NUL character", err);
    }
    if (!walk->is_key && walk->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
        is_null_word(value)) {
        return walk_error(walk, "has no value; write one or leave the key out", err);
    }
    return KMS_OK;
}

/* An alias to an alias to ... grows exponentially, a tag changes what a value is. */
static enum kms_status check_decoration(const struct walk *walk, const yaml_char_t *anchor,
                                        const yaml_char_t *tag, struct kms_error *err)
{
    if (anchor != NULL) {
        return walk_error(walk, "anchors (&name) are not allowed", err);
    }
    if (tag != NULL) {
        return walk_error(walk, "tags (!name) are not allowed", err);
    }
    return KMS_OK;
}

static enum kms_status check_event(const struct walk *walk, struct kms_error *err)
{
    const yaml_event_t *event = &walk->event;
    enum kms_status status;

    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return walk_error(walk, "aliases (*name) are not allowed", err);
    case YAML_MAPPING_START_EVENT:
        return check_decoration(walk, event->data.mapping_start.anchor,
                                event->data.mapping_start.tag, err);
    case YAML_SEQUENCE_START_EVENT:
        return check_decoration(walk, event->data.sequence_start.anchor,
                                event->data.sequence_start.tag, err);
    case YAML_SCALAR_EVENT:
        status = check_decoration(walk, event->data.scalar.anchor, event->data.scalar.tag, err);
        return status == KMS_OK ? check_scalar(walk, err) : status;
    case YAML_DOCUMENT_START_EVENT:
        return walk->documents > 1 ? walk_error(walk, "a second document begins here", err)
                                   : KMS_OK;
    default:
        return KMS_OK;
    }
}

/* What libyaml would take, in another encoding or silently. */
static enum kms_status check_text(const char *name, const char *content, size_t len,
                                  struct kms_error *err)
{
    struct kms_span rest = kms_span_of(content, len);
    size_t line;

    if (len >= 3 && memcmp(content, "\xef\xbb\xbf", 3) == 0) {
        return kms_error_set(err, KMS_E_INVALID,
                             "%s:1: begins with a byte order mark; save it as UTF-8 without one",
                             name);
    }
    while (rest.len > 0) {
        size_t used = kms_utf8_next(rest);

        if (used == 0) {
            line = line_of_offset(content, len, len - rest.len);
            return kms_error_set(err, KMS_E_INVALID, "%s:%zu: %s", name, line,
                                 rest.data[0] == 0 ? "holds a NUL byte" : "is not UTF-8 text");
        }
        rest = kms_span_of(rest.data + used, rest.len - used);
    }
    return KMS_OK;
}

static enum kms_status check_events(struct walk *walk, struct kms_error *err)
{
    enum kms_status status;

    do {
        status = walk_next(walk, err);
        if (status == KMS_OK) {
            status = check_event(walk, err);
        }
    } while (status == KMS_OK && walk->event.type != YAML_STREAM_END_EVENT);
    if (status == KMS_OK && walk->documents == 0) {
        return kms_error_set(err, KMS_E_INVALID, "%s: is empty", walk->name);
    }
    return status;
}

enum kms_status kms_yaml_check(const char *name, const char *content, size_t len,
                               struct kms_error *err)
{
    struct walk walk;
    enum kms_status status = check_text(name, content, len, err);

    if (status != KMS_OK) {
        return status;
    }
    status = walk_init(&walk, name, content, len, err);
    if (status != KMS_OK) {
        return status;
    }
    status = check_events(&walk, err);
    walk_done(&walk);
    return status;
}

size_t kms_yaml_line(const char *content, size_t len, const char *path)
{
    struct walk walk;
    size_t line = 0;

    if (walk_init(&walk, "", content, len, NULL) != KMS_OK) {
        return 0;
    }
    while (line == 0 && walk_next(&walk, NULL) == KMS_OK &&
           walk.event.type != YAML_STREAM_END_EVENT) {
        if (walk.path_len > 0 && strcmp(walk.path, path) == 0) {
            line = walk_line(&walk);
        }
    }
    walk_done(&walk);
    return line;
}
