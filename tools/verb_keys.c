/* SPDX-License-Identifier: Apache-2.0 */
/* keys list, keys create, keys rotate: the configured token's keys, through the waist. */
#include "tools/verbs.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/codec.h"
#include "common/numbers.h"
#include "tools/context.h"

#define KEYS_MAX  4096 /* shown; a token with more is an error, never a silent cut */
#define CELLS     8    /* of a key */
#define CELL_SIZE 160  /* the longest but the label, which is printed in place */

struct key_row {
    struct kms_key_info info;
    bool configured; /* kms.key names it */
    bool active;
};

struct key_list {
    struct key_row *rows;
    size_t count;
    size_t room;
    bool failed;
};

/* ---- gathering ------------------------------------------------------------------------------- */

static bool gather(void *ctx, const struct kms_key_info *info)
{
    struct key_list *list = ctx;

    if (list->count == list->room) {
        size_t room = list->room == 0 ? 32 : list->room * 2;
        struct key_row *rows =
            room <= KEYS_MAX ? reallocarray(list->rows, room, sizeof(*rows)) : NULL;

        if (rows == NULL) {
            list->failed = true;
            return false;
        }
        list->rows = rows;
        list->room = room;
    }
    list->rows[list->count++] = (struct key_row){.info = *info};
    return true;
}

/* Marks the row that is @info. */
static bool mark(void *ctx, const struct kms_key_info *info)
{
    struct key_list *list = ctx;
    size_t i;

    for (i = 0; i < list->count; i++) {
        if (strcmp(list->rows[i].info.ref, info->ref) == 0) {
            list->rows[i].configured = true;
        }
    }
    return true;
}

static int compare_rows(const void *a, const void *b)
{
    const struct key_row *left = a, *right = b;
    int order = strcmp(left->info.label, right->info.label);

    return order != 0 ? order : kms_key_age_compare(&left->info, &right->info);
}

/* Sorted; a key that came twice, since the service failed halfway and was asked anew, is there
 * once.
 */
static void drop_doubles(struct key_list *list)
{
    size_t kept = 0;

    for (size_t i = 0; i < list->count; i++) {
        if (kept == 0 || strcmp(list->rows[kept - 1].info.ref, list->rows[i].info.ref) != 0) {
            list->rows[kept++] = list->rows[i];
        }
    }
    list->count = kept;
}

/* Of those that kms.key names and that can seal and unseal, the newest. */
static void choose_active(struct key_list *list)
{
    struct key_row *newest = NULL;
    size_t i;

    for (i = 0; i < list->count; i++) {
        struct key_row *row = &list->rows[i];

        if (row->configured && row->info.seal != KMS_ALG_NONE &&
            (row->info.uses & KMS_USE_DECRYPT) != 0 &&
            (newest == NULL || kms_key_age_compare(&row->info, &newest->info) > 0)) {
            newest = row;
        }
    }
    if (newest != NULL) {
        newest->active = true;
    }
}

static enum kms_status gather_all(struct kms_waist *waist, const char *spec, struct kms_call *call,
                                  struct key_list *list)
{
    const struct kms_key_filter every = {0};
    const struct kms_key_filter named = {.spec = spec};
    enum kms_status status = kms_waist_list_keys(waist, call, &every, gather, list);

    if (status == KMS_OK && list->failed) {
        return kms_error_set(&call->error, KMS_E_TOO_LARGE,
                             "the token has more than %d keys, or there is no memory", KEYS_MAX);
    }
    if (status == KMS_OK && spec != NULL) { /* NULL: an agent only, with no KEK of its own */
        status = kms_waist_list_keys(waist, call, &named, mark, list);
    }
    if (status == KMS_OK && list->count > 0) {
        qsort(list->rows, list->count, sizeof(*list->rows), compare_rows);
        drop_doubles(list);
        choose_active(list);
    }
    return status;
}

/* ---- showing --------------------------------------------------------------------------------- */

static const struct use_row {
    enum kms_key_use use;
    const char *name;
} use_rows[] = {
    {KMS_USE_ENCRYPT, "encrypt"}, {KMS_USE_DECRYPT, "decrypt"}, {KMS_USE_WRAP, "wrap"},
    {KMS_USE_UNWRAP, "unwrap"},   {KMS_USE_SIGN, "sign"},       {KMS_USE_VERIFY, "verify"},
};

static const char *state_of(const struct key_row *row)
{
    if (row->active) {
        return "active";
    }
    return row->configured && (row->info.uses & KMS_USE_DECRYPT) != 0 ? "decrypt-only" : "";
}

static void uses_text(unsigned uses, char *ret_text, size_t size)
{
    size_t i, len = 0;

    ret_text[0] = '\0';
    for (i = 0; i < sizeof(use_rows) / sizeof(use_rows[0]); i++) {
        if ((uses & use_rows[i].use) != 0 && len < size) {
            len += (size_t)snprintf(ret_text + len, size - len, "%s%s", len > 0 ? "," : "",
                                    use_rows[i].name);
        }
    }
}

/* A row's texts that are no plain members of its info. */
struct key_text {
    char tag[KMS_KEY_TAG_MAX * 2 + 1];
    char bits[16];
    char uses[CELL_SIZE];
};

static void fill_cells(const struct key_row *row, struct key_text *text, const char *cells[CELLS])
{
    const struct kms_key_info *info = &row->info;

    if (kms_hex_encode(kms_span_of(info->tag, info->tag_len), text->tag, sizeof(text->tag)) !=
        KMS_OK) {
        text->tag[0] = '\0';
    }
    snprintf(text->bits, sizeof(text->bits), "%u", info->bits);
    uses_text(info->uses, text->uses, sizeof(text->uses));
    cells[0] = info->id;
    cells[1] = info->label;
    cells[2] = text->tag;
    cells[3] = kms_key_type_name(info->type);
    cells[4] = text->bits;
    cells[5] = text->uses;
    cells[6] = info->seal != KMS_ALG_NONE ? kms_alg_name(info->seal) : "";
    cells[7] = state_of(row);
}

static const struct kms_column key_columns[CELLS] = {
    {"key_id", "KEY ID", KMS_CELL_TEXT}, {"label", "LABEL", KMS_CELL_TEXT},
    {"cka_id", "CKA_ID", KMS_CELL_TEXT}, {"type", "TYPE", KMS_CELL_TEXT},
    {"bits", "BITS", KMS_CELL_NUMBER},   {"uses", "USES", KMS_CELL_LIST},
    {"seal", "SEAL", KMS_CELL_TEXT},     {"state", "STATE", KMS_CELL_TEXT},
};

static enum kms_status show(const struct key_list *list, bool json, struct kms_error *err)
{
    struct key_text *texts = calloc(list->count + 1, sizeof(*texts));
    const char **cells = calloc(list->count + 1, CELLS * sizeof(*cells));
    enum kms_status status;
    size_t i;

    if (texts == NULL || cells == NULL) {
        status = kms_error_set(err, KMS_E_NOMEM, "no memory");
        goto out;
    }
    for (i = 0; i < list->count; i++) {
        fill_cells(&list->rows[i], &texts[i], cells + i * CELLS);
    }
    status = kms_output_rows(stdout, json, "keys", key_columns, CELLS, cells, list->count, err);
out:
    free(texts);
    free(cells);
    return status;
}

/* ---- the verbs ------------------------------------------------------------------------------- */

/* What these verbs begin with; on failure nothing is left to close. */
static enum kms_exit begin(const struct kms_options *options, struct kms_conf **ret_conf,
                           struct kms_waist **ret_waist, struct kms_failure *failure)
{
    enum kms_exit code = kms_context_conf(options, ret_conf, failure);

    if (code != KMS_EXIT_OK) {
        return code;
    }
    code = kms_context_waist(*ret_conf, ret_waist, failure);
    if (code != KMS_EXIT_OK) {
        kms_conf_done(*ret_conf);
    }
    return code;
}

enum kms_exit kms_verb_keys_list(const struct kms_options *options, struct kms_failure *failure)
{
    struct kms_conf *conf = NULL;
    struct kms_waist *waist = NULL;
    struct key_list list = {0};
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_HSM_CALL_S * KMS_NS_PER_S)};
    enum kms_exit code = begin(options, &conf, &waist, failure);

    if (code != KMS_EXIT_OK) {
        return code;
    }
    if (gather_all(waist, conf->kms.key, &call, &list) != KMS_OK) {
        code = kms_context_call_failed(&call, failure);
    } else if (show(&list, kms_option_given(options, KMS_OPT_JSON), &failure->error) != KMS_OK) {
        code = KMS_EXIT_FAILED;
    }
    free(list.rows);
    kms_waist_close(waist);
    kms_conf_done(conf);
    return code;
}

static const struct type_row {
    const char *name;
    enum kms_key_type type;
} type_rows[] = {
    {"aes", KMS_KEY_AES},           {"rsa", KMS_KEY_RSA}, {"ec", KMS_KEY_EC},
    {"chacha20", KMS_KEY_CHACHA20}, {"sm4", KMS_KEY_SM4},
};

/* --type and --bits into @tmpl. */
static enum kms_exit read_template(const struct kms_options *options, struct kms_key_template *tmpl,
                                   struct kms_failure *failure)
{
    const char *type = kms_option_or(options, KMS_OPT_TYPE, "aes");
    const char *bits = kms_option_or(options, KMS_OPT_BITS, "0");
    uint64_t number = 0;
    size_t i;

    for (i = 0; i < sizeof(type_rows) / sizeof(type_rows[0]); i++) {
        if (strcmp(type_rows[i].name, type) == 0) {
            break;
        }
    }
    if (i == sizeof(type_rows) / sizeof(type_rows[0])) {
        (void)kms_error_set(&failure->error, KMS_E_INVALID, "--type: \"%s\" is no key type", type);
        return kms_fail(failure, KMS_EXIT_USAGE, "give one of aes, rsa, ec, chacha20, sm4");
    }
    if (kms_parse_u64(bits, 0, 65536, &number) != KMS_OK ||
        (number == 0 && kms_option_given(options, KMS_OPT_BITS))) {
        (void)kms_error_set(&failure->error, KMS_E_INVALID, "--bits: \"%s\" is no key size", bits);
        return kms_fail(failure, KMS_EXIT_USAGE, "give a number such as 256 or 3072");
    }
    tmpl->type = type_rows[i].type;
    tmpl->bits = (unsigned)number;
    return KMS_EXIT_OK;
}

/* --label, or kms.key where that is a label. */
static enum kms_exit read_label(const struct kms_options *options, const struct kms_conf *conf,
                                struct kms_key_template *tmpl, struct kms_failure *failure)
{
    const char *key = conf->kms.key;

    if (key == NULL && !kms_option_given(options, KMS_OPT_LABEL)) {
        (void)kms_error_set(&failure->error, KMS_E_INVALID, "%s has no kms.key to name the key",
                            conf->path);
        return kms_fail(failure, KMS_EXIT_USAGE, "say with --label what the new key is called");
    }
    tmpl->label = kms_option_or(options, KMS_OPT_LABEL, key);
    if (!kms_option_given(options, KMS_OPT_LABEL) &&
        (strncmp(key, "id:", 3) == 0 || strncmp(key, "pkcs11:", 7) == 0)) {
        (void)kms_error_set(&failure->error, KMS_E_INVALID, "kms.key is \"%s\", which is no label",
                            key);
        return kms_fail(failure, KMS_EXIT_USAGE, "say with --label what the new key is called");
    }
    if (tmpl->label[0] == '\0') {
        (void)kms_error_set(&failure->error, KMS_E_INVALID, "--label is empty");
        return kms_fail(failure, KMS_EXIT_USAGE, "a key needs a label to be found by");
    }
    return KMS_EXIT_OK;
}

/* What was made, whose state is told by looking at all of them. */
static enum kms_exit show_made(struct kms_waist *waist, struct kms_call *call,
                               const struct kms_key_info *made, const char *spec, bool json,
                               struct kms_failure *failure)
{
    struct key_list list = {0};
    struct key_list one;
    enum kms_exit code = KMS_EXIT_OK;
    size_t i;

    if (gather_all(waist, spec, call, &list) != KMS_OK) {
        code = kms_context_call_failed(call, failure);
        snprintf(failure->next, sizeof(failure->next),
                 "the key is made (%s); only the look at it failed", made->id);
        goto out;
    }
    for (i = 0; i < list.count && strcmp(list.rows[i].info.ref, made->ref) != 0; i++) {
    }
    one = (struct key_list){.rows = list.rows + i, .count = i < list.count ? 1 : 0};
    if (show(&one, json, &failure->error) != KMS_OK) {
        code = KMS_EXIT_FAILED;
    }
out:
    free(list.rows);
    return code;
}

/* Where no answer came, or none that can be read, it may be there all the same: nobody asked twice.
 */
static enum kms_exit not_made(const struct kms_call *call, struct kms_failure *failure)
{
    if (call->error.status == KMS_E_TIMEOUT || call->error.status == KMS_E_PROTOCOL) {
        (void)kms_fail(failure, KMS_EXIT_FAILED,
                       "the key may have been made all the same: look with kmsbridgectl keys list "
                       "before you try again");
    }
    return kms_context_call_failed(call, failure);
}

static enum kms_exit create(struct kms_waist *waist, const struct kms_key_template *tmpl,
                            const char *spec, bool json, struct kms_failure *failure)
{
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_HSM_CALL_S * KMS_NS_PER_S)};
    struct kms_key_info made;

    return kms_waist_generate(waist, &call, tmpl, &made) == KMS_OK
               ? show_made(waist, &call, &made, spec, json, failure)
               : not_made(&call, failure);
}

enum kms_exit kms_verb_keys_create(const struct kms_options *options, struct kms_failure *failure)
{
    struct kms_key_template tmpl = {0};
    struct kms_conf *conf = NULL;
    struct kms_waist *waist = NULL;
    enum kms_exit code = read_template(options, &tmpl, failure);

    if (code == KMS_EXIT_OK) {
        code = begin(options, &conf, &waist, failure);
    }
    if (code != KMS_EXIT_OK) {
        return code;
    }
    code = read_label(options, conf, &tmpl, failure);
    if (code == KMS_EXIT_OK) {
        code =
            create(waist, &tmpl, conf->kms.key, kms_option_given(options, KMS_OPT_JSON), failure);
    }
    kms_waist_close(waist);
    kms_conf_done(conf);
    return code;
}

/* The newest key of @label; without one, the active KEK. NULL: there is none. */
static const struct kms_key_info *choose_rotated(const struct key_list *list, const char *label)
{
    const struct kms_key_info *newest = NULL;
    size_t i;

    for (i = 0; i < list->count; i++) {
        const struct key_row *row = &list->rows[i];

        if (label == NULL ? row->active : strcmp(row->info.label, label) == 0) {
            newest =
                newest == NULL || kms_key_age_compare(&row->info, newest) > 0 ? &row->info : newest;
        }
    }
    return newest;
}

static enum kms_exit rotate(struct kms_waist *waist, const char *label, const char *spec, bool json,
                            struct kms_failure *failure)
{
    struct kms_call call = {.deadline_ns = kms_deadline_in(KMS_HSM_CALL_S * KMS_NS_PER_S)};
    struct key_list list = {0};
    const struct kms_key_info *key = NULL;
    struct kms_key_info made;
    enum kms_exit code = KMS_EXIT_OK;

    if (gather_all(waist, spec, &call, &list) != KMS_OK) {
        code = kms_context_call_failed(&call, failure);
        goto out;
    }
    key = choose_rotated(&list, label);
    if (key == NULL) {
        (void)kms_error_set(&failure->error, KMS_E_NOT_FOUND,
                            label != NULL ? "there is no key \"%s\""
                                          : "kms.key (%s) names no key that encrypts",
                            label != NULL  ? label
                            : spec != NULL ? spec
                                           : "not set");
        code = kms_fail(failure, KMS_EXIT_FAILED, "kmsbridgectl keys list shows what there is");
        goto out;
    }
    code = kms_waist_rotate(waist, &call, key->ref, &made) == KMS_OK
               ? show_made(waist, &call, &made, spec, json, failure)
               : not_made(&call, failure);
out:
    free(list.rows);
    return code;
}

enum kms_exit kms_verb_keys_rotate(const struct kms_options *options, struct kms_failure *failure)
{
    struct kms_conf *conf = NULL;
    struct kms_waist *waist = NULL;
    enum kms_exit code = begin(options, &conf, &waist, failure);

    if (code != KMS_EXIT_OK) {
        return code;
    }
    code = rotate(waist, options->value[KMS_OPT_LABEL], conf->kms.key,
                  kms_option_given(options, KMS_OPT_JSON), failure);
    kms_waist_close(waist);
    kms_conf_done(conf);
    return code;
}
