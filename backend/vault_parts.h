/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the vault backend share; for backend/vault*.c alone. */
#ifndef KMS_BACKEND_VAULT_PARTS_H
#define KMS_BACKEND_VAULT_PARTS_H

#include <pthread.h>

#include "backend/backend.h"
#include "backend/backend_conf.h"
#include "backend/rest/credential.h"
#include "backend/rest/endpoints.h"
#include "backend/rest/json.h"

#define KMS_VAULT_NAME_MAX     256  /* of a Transit key, with NUL */
#define KMS_VAULT_PATH_MAX     2048 /* of a request, with NUL: a worker's stack has one */
#define KMS_VAULT_TIME_MAX     64   /* a creation time as text, with NUL */
#define KMS_VAULT_VERSIONS_MAX 4096 /* of a key, from min_decryption_version on */
/* Of a reply: all versions of a key, with 1 KiB for each: an RSA-4096's PEM takes 950 bytes. */
#define KMS_VAULT_REPLY_MAX (KMS_VAULT_VERSIONS_MAX * 1024u + 8192u)
#define KMS_VAULT_KEYS_MAX  1024   /* of one mount */
#define KMS_VAULT_MARK      "mac:" /* how the mark of an HMAC key's version begins: vault.h */
#define KMS_VAULT_MARK_MAX  40     /* with NUL */
#define KMS_VAULT_LOST_MAX  256    /* versions that went, which are remembered */
#define KMS_VAULT_DIGEST    32

/* ---- vault_types.c: what Transit has -------------------------------------------------------- */

struct kms_vault_type {
    const char *name; /* Transit's */
    enum kms_key_type type;
    unsigned bits; /* 0: by key_size */
    enum kms_alg seal;
    unsigned seal_uses; /* of enum kms_key_use, what the type can */
    unsigned open_uses;
};
const struct kms_vault_type *kms_vault_type_named(const char *name);
const struct kms_vault_type *kms_vault_type_for(enum kms_key_type type, unsigned bits);
/* The algorithms of keys of the type. */
struct kms_alg_set kms_vault_type_algs(const struct kms_vault_type *type);
void kms_vault_types_all(struct kms_alg_set *ret_algs, unsigned *ret_generates);

/* How to ask for a signature or MAC. */
struct kms_vault_sign {
    enum kms_alg alg;
    enum kms_key_type type;
    const char *hash;      /* hash_algorithm, or the MAC's; NULL: not sent */
    const char *signature; /* signature_algorithm; NULL: not sent */
    size_t digest_len;     /* the input's, where it must be a digest */
    bool prehashed;
};
const struct kms_vault_sign *kms_vault_sign_for(enum kms_alg alg);

/* ---- vault_login.c: the token --------------------------------------------------------------- */

/* One fetch at a time (backend/rest/credential.h): no lock. */
struct kms_vault_login {
    struct kms_backend *backend;
    uint64_t lease_ns; /* of the last login, which renewals are measured by */
    char *unwrapped;   /* the secret id that came out of a wrapping token; secure memory */
    char *wrapping;    /* the token that it came out of; secure memory */
    bool told_blind;   /* that a token may not look itself up was logged */
};
enum kms_status kms_vault_login(void *ctx, const struct kms_http_wait *wait,
                                const struct kms_credential_value *old,
                                struct kms_credential_slot *slot, struct kms_error *err);
void kms_vault_login_done(struct kms_vault_login *login);

/* ---- vault_token.c: whether it is the token's fault ------------------------------------------ */

enum kms_vault_verdict {
    KMS_VAULT_TOKEN_GOOD,
    KMS_VAULT_TOKEN_BAD,    /* unknown, expired, revoked, or not to be used from here */
    KMS_VAULT_TOKEN_UNSURE, /* the server lets nobody see */
    KMS_VAULT_TOKEN_UNASKED /* no answer: the server is ill, or there is no time left */
};
/* Of a token with which something has just been denied, as @said says. */
enum kms_vault_verdict kms_vault_weigh(struct kms_backend *backend,
                                       const struct kms_http_wait *wait, const char *token,
                                       const struct kms_error *said);
/* The same where that something was to look the token up. *@ret_why: of UNASKED. */
enum kms_vault_verdict kms_vault_weigh_blind(struct kms_backend *backend,
                                             const struct kms_http_wait *wait, const char *token,
                                             const struct kms_error *said,
                                             struct kms_error *ret_why);

/* ---- vault_table.c: keys that were seen ----------------------------------------------------- */

struct kms_vault_key {
    char id[KMS_KEY_ID_MAX];
    char name[KMS_VAULT_NAME_MAX];
    uint64_t version;
    const struct kms_vault_type *type;
    unsigned bits;
    unsigned uses;
    char mark[KMS_VAULT_MARK_MAX]; /* what stands for its creation time, of an HMAC key; or "" */
    uint64_t seen_ns;
};

/* A version that was seen, and then was not there any more. */
struct kms_vault_lost {
    char id[KMS_KEY_ID_MAX];
    char name[KMS_VAULT_NAME_MAX];
    uint64_t version;
};

struct kms_vault_table {
    pthread_mutex_t lock;  /* guards all below */
    pthread_cond_t listed; /* is_listing became false */
    struct kms_vault_key *keys;
    size_t count;
    size_t room;
    struct kms_vault_lost lost[KMS_VAULT_LOST_MAX]; /* a ring */
    size_t lost_count;
    uint64_t listed_ns; /* when a list came last; 0: none, or the last one failed */
    bool is_listing;
};
void kms_vault_table_init(struct kms_vault_table *table);
void kms_vault_table_done(struct kms_vault_table *table);
/*
 * All versions of @name are now these, ascending (@count 0: it is gone, which cannot fail); what
 * else was known of it is lost from then on.
 */
enum kms_status kms_vault_table_replace(struct kms_vault_table *table, const char *name,
                                        const struct kms_vault_key *keys, size_t count,
                                        struct kms_error *err) KMS_MUST_CHECK;
/*
 * False when not known. *ret_stale: it was seen too long ago, and this caller (no other one for a
 * while) is to read it anew.
 */
bool kms_vault_table_find(struct kms_vault_table *table, const char *ref,
                          struct kms_vault_key *ret_key, bool *ret_stale);
/*
 * True for one that was known once and is lost: its name is known still, so that whoever asks for
 * it need not list the mount.
 */
bool kms_vault_table_lost(struct kms_vault_table *table, const char *ref,
                          struct kms_vault_lost *ret_lost);
struct kms_vault_read;
/* The marks that are known of the versions of @name, into ->recalled of @read's. */
void kms_vault_table_recall(struct kms_vault_table *table, const char *name,
                            struct kms_vault_read *read);
/*
 * *ret_may: nobody has listed for a moment, and it is this caller's to do, who then calls
 * kms_vault_table_listed(). A list that is on its way is waited for, and one that failed says
 * nothing of any key: the next caller lists anew. KMS_E_TIMEOUT, KMS_E_CANCELLED.
 */
enum kms_status kms_vault_table_may_list(struct kms_vault_table *table, struct kms_call *call,
                                         bool *ret_may) KMS_MUST_CHECK;
void kms_vault_table_listed(struct kms_vault_table *table, bool whole);

/* ---- the backend ---------------------------------------------------------------------------- */

#define KMS_VAULT_GONE_MAX 64

struct kms_backend {
    const struct kms_backend_conf *conf;
    const struct kms_vault_conf *vault;
    char mount[KMS_LABEL_MAX];
    char name_space[KMS_LABEL_MAX];
    char auth_mount[KMS_LABEL_MAX]; /* of the login: behind auth/ */
    struct kms_http_door *door;
    struct kms_endpoints *endpoints;
    struct kms_credential *credential;
    struct kms_vault_login login;
    struct kms_vault_table table;

    pthread_mutex_t lock; /* guards what follows */
    bool ready;
    struct kms_error trouble;
    uint64_t relogins;
    uint64_t doubted_ns; /* when a token was replaced that was perhaps good; 0: never */
    char last_read[KMS_VAULT_NAME_MAX];            /* the key that was read last; "": none was */
    char gone[KMS_VAULT_GONE_MAX][KMS_KEY_ID_MAX]; /* ids of what we destroyed, a ring */
    size_t gone_count;
};

/* ---- vault_ask.c: requests ------------------------------------------------------------------ */

struct kms_vault_ask {
    enum kms_http_method method;
    const char *path; /* from "/v1/" on */
    struct kms_span body;
    bool once;
    bool fresh; /* as struct kms_http_request has them */
};

struct kms_vault_reply {
    struct kms_http_response http;
    struct kms_json_doc *doc; /* NULL: no body */
    struct kms_json root;
};

/* "/v1/<mount>/<a><name, escaped><b>" */
enum kms_status kms_vault_path(const struct kms_backend *backend, struct kms_call *call,
                               const char *a, const char *name, const char *b,
                               char ret_path[KMS_VAULT_PATH_MAX]) KMS_MUST_CHECK;
/*
 * Asks with our token; a token that was refused is replaced and the question repeated, once. The
 * answer is a good one (2xx), or the error says what Transit said. @ret is done with
 * kms_vault_reply_done() whatever comes back.
 */
enum kms_status kms_vault_ask(struct kms_backend *backend, struct kms_call *call,
                              const struct kms_vault_ask *ask,
                              struct kms_vault_reply *ret) KMS_MUST_CHECK;
/* The same with a token given (NULL: none), for logins. */
enum kms_status kms_vault_ask_as(struct kms_backend *backend, const struct kms_http_wait *wait,
                                 const char *token, const struct kms_vault_ask *ask,
                                 struct kms_vault_reply *ret, struct kms_error *err) KMS_MUST_CHECK;
void kms_vault_reply_done(struct kms_vault_reply *reply);
bool kms_vault_is_sick(const struct kms_http_response *response);
/* The first of its "errors", or "". */
void kms_vault_say(const struct kms_http_response *response, char *ret_text, size_t size);
/* The object "data" of a reply. */
enum kms_status kms_vault_data(const struct kms_vault_reply *reply, struct kms_json *ret_data,
                               struct kms_error *err) KMS_MUST_CHECK;

/* A request's body, in secure memory. */
struct kms_vault_body {
    struct kms_blob blob;
    struct kms_buf buf;
    struct kms_json_out json;
};
/* For fields of @size bytes in all, besides names and numbers. */
enum kms_status kms_vault_body_begin(struct kms_vault_body *body, size_t size,
                                     struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_vault_body_end(struct kms_vault_body *body,
                                   struct kms_error *err) KMS_MUST_CHECK;
void kms_vault_body_done(struct kms_vault_body *body);

/* ---- vault_keys.c --------------------------------------------------------------------------- */

enum kms_status kms_vault_list_keys(struct kms_backend *backend, struct kms_call *call,
                                    const struct kms_key_filter *filter, kms_key_visit visit,
                                    void *ctx);
/* Reads each key of the mount that may be read; KMS_E_DENIED without the right to LIST. */
enum kms_status kms_vault_read_all(struct kms_backend *backend,
                                   struct kms_call *call) KMS_MUST_CHECK;
/*
 * Reads the key @name, and what is known of it is that from then on. Visits its versions, oldest
 * first (@visit may be NULL). KMS_E_NOT_FOUND; a key of another kind than ours has no versions.
 */
enum kms_status kms_vault_read(struct kms_backend *backend, struct kms_call *call, const char *name,
                               kms_key_visit visit, void *ctx) KMS_MUST_CHECK;
bool kms_vault_name_is_valid(const char *name);

/* ---- vault_find.c --------------------------------------------------------------------------- */

/*
 * KMS_E_NOT_FOUND; KMS_E_KEY_STATE when it lacks @use now, or is a version that was archived;
 * KMS_E_UNSUPPORTED when its type lacks @use. KMS_E_DENIED of a ref that was never seen by name,
 * where the keys may not be listed.
 */
enum kms_status kms_vault_find(struct kms_backend *backend, struct kms_call *call, const char *ref,
                               enum kms_alg alg, unsigned use,
                               struct kms_vault_key *ret_key) KMS_MUST_CHECK;

/* ---- vault_marks.c -------------------------------------------------------------------------- */

/* Fills ->created of HMAC keys' versions, and leaves out those that have none: see there. */
enum kms_status kms_vault_take_marks(struct kms_backend *backend, struct kms_call *call,
                                     const char *name, struct kms_vault_read *read) KMS_MUST_CHECK;

/* ---- vault_parse.c: what is read of a key --------------------------------------------------- */

struct kms_vault_read {
    const struct kms_vault_type *type; /* NULL: none of ours */
    char type_name[64];
    unsigned bits;
    uint64_t latest, min_decrypt, min_encrypt;
    bool soft_deleted, derived, exportable, backup, imported;
    size_t count;
    struct kms_vault_version {
        uint64_t version;
        char created[KMS_VAULT_TIME_MAX];  /* "" where Transit does not tell, of HMAC keys */
        char recalled[KMS_VAULT_MARK_MAX]; /* vault_marks.c */
    } * versions;                          /* ascending; on the heap */
};
enum kms_status kms_vault_parse_key(const struct kms_json *data, struct kms_vault_read *ret,
                                    struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_vault_too_many(struct kms_error *err); /* KMS_E_TOO_LARGE */
void kms_vault_read_done(struct kms_vault_read *read);
/* The identity of version @at of @read, as vault.h says, and all that follows from it. */
enum kms_status kms_vault_describe_key(const struct kms_backend *backend, const char *name,
                                       const struct kms_vault_read *read, size_t at,
                                       struct kms_key_info *ret_info, struct kms_vault_key *ret_key,
                                       struct kms_error *err) KMS_MUST_CHECK;

/* ---- the ops of the other files ------------------------------------------------------------- */

enum kms_status kms_vault_encrypt(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref, const struct kms_params *params,
                                  struct kms_span plaintext, struct kms_sealed *ret_sealed);
enum kms_status kms_vault_decrypt(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref, const struct kms_params *params,
                                  struct kms_span ciphertext, struct kms_buf *ret_plaintext);
enum kms_status kms_vault_wrap(struct kms_backend *backend, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span key,
                               struct kms_sealed *ret_sealed);
enum kms_status kms_vault_unwrap(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, const struct kms_params *params,
                                 struct kms_span wrapped, struct kms_buf *ret_key);
enum kms_status kms_vault_sign(struct kms_backend *backend, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span input,
                               struct kms_buf *ret_signature);
enum kms_status kms_vault_verify(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, const struct kms_params *params,
                                 struct kms_span input, struct kms_span signature);
/* SHA-256's MAC of @input by one version of an HMAC key, whatever it is for now. */
enum kms_status kms_vault_mac_of(struct kms_backend *backend, struct kms_call *call,
                                 const struct kms_vault_key *key, const struct kms_vault_sign *row,
                                 struct kms_span input, struct kms_buf *ret_mac) KMS_MUST_CHECK;
enum kms_status kms_vault_mac(struct kms_backend *backend, struct kms_call *call, const char *ref,
                              const struct kms_params *params, struct kms_span input,
                              struct kms_buf *ret_mac);
enum kms_status kms_vault_generate(struct kms_backend *backend, struct kms_call *call,
                                   const struct kms_key_template *tmpl,
                                   struct kms_key_info *ret_info);
enum kms_status kms_vault_rotate(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, struct kms_key_info *ret_info);
enum kms_status kms_vault_destroy(struct kms_backend *backend, struct kms_call *call,
                                  const char *ref);
enum kms_status kms_vault_public_key(struct kms_backend *backend, struct kms_call *call,
                                     const char *ref, struct kms_buf *ret_spki);

enum kms_status kms_vault_data_key(struct kms_backend *backend, struct kms_call *call,
                                   const char *ref, const struct kms_params *params, size_t len,
                                   struct kms_buf *ret_key, struct kms_sealed *ret_sealed);
enum kms_status kms_vault_rewrap(struct kms_backend *backend, struct kms_call *call,
                                 const char *ref, const struct kms_params *params,
                                 struct kms_span ciphertext, struct kms_sealed *ret_sealed);

/* ---- vault_cipher.c: what the ops on ciphertexts share --------------------------------------- */

#define KMS_VAULT_AEAD_IV  12
#define KMS_VAULT_AEAD_TAG 16

/* nonce || ciphertext || tag of those lengths: AES-GCM, ChaCha20-Poly1305 */
bool kms_vault_is_aead(enum kms_alg alg);
enum kms_status kms_vault_check_params(struct kms_call *call, enum kms_alg alg,
                                       const struct kms_params *params) KMS_MUST_CHECK;
/* KMS_E_BAD_DATA: the lengths are none of Transit's. */
enum kms_status kms_vault_check_sealed(struct kms_call *call, const struct kms_vault_key *key,
                                       enum kms_alg alg, struct kms_span iv,
                                       struct kms_span sealed) KMS_MUST_CHECK;
/* kms_vault_find(), which settles KMS_ALG_BEST: *alg becomes what the key seals by. */
enum kms_status kms_vault_find_sealer(struct kms_backend *backend, struct kms_call *call,
                                      const char *ref, unsigned use, enum kms_alg *alg,
                                      struct kms_vault_key *ret_key) KMS_MUST_CHECK;
/* Ends @body, posts it to "<mount><verb><key's name>"; the reply's data. */
enum kms_status kms_vault_ask_cipher(struct kms_backend *backend, struct kms_call *call,
                                     const char *verb, const struct kms_vault_key *key,
                                     struct kms_vault_body *body, struct kms_vault_reply *ret_reply,
                                     struct kms_json *ret_data) KMS_MUST_CHECK;
/* "ciphertext" of @data, which must be of the version of @key, taken apart; alg and key_id of @ret
 * are the caller's to say. */
enum kms_status kms_vault_take_sealed(struct kms_call *call, const struct kms_vault_key *key,
                                      enum kms_alg alg, const struct kms_json *data,
                                      size_t plain_len, struct kms_sealed *ret) KMS_MUST_CHECK;

/* "vault:vN:<base64>" (@url: base64url without padding) taken apart; KMS_E_PROTOCOL. */
enum kms_status kms_vault_take_text(const char *text, const struct kms_vault_key *key, bool url,
                                    struct kms_buf *out, struct kms_error *err) KMS_MUST_CHECK;
/* And put together, as the field @key of @body. */
void kms_vault_put_text(struct kms_vault_body *body, const char *field,
                        const struct kms_vault_key *key, bool url, struct kms_span first,
                        struct kms_span second);

#endif
