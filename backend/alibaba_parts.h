/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the `alibaba` backend share. Included by backend/alibaba*.c and its tests. */
#ifndef KMS_BACKEND_ALIBABA_PARTS_H
#define KMS_BACKEND_ALIBABA_PARTS_H

#include <limits.h>
#include <openssl/evp.h>
#include <pthread.h>

#include "backend/backend.h"
#include "backend/backend_conf.h"
#include "backend/rest/acs3.h"
#include "backend/rest/credential.h"
#include "backend/rest/endpoints.h"
#include "backend/rest/http.h"
#include "backend/rest/json.h"

#define KMS_ALI_PLAINTEXT_MAX 6144  /* bytes that Encrypt takes */
#define KMS_ALI_CONTEXT_MAX   2048  /* bytes of EncryptionContext's JSON, with NUL */
#define KMS_ALI_ID_MAX        64    /* of a KeyId or KeyVersionId, with NUL */
#define KMS_ALI_QUERY_MAX     30000 /* bytes of a query */
#define KMS_ALI_PARAMS_MAX    8
#define KMS_ALI_URL_MAX       256
#define KMS_ALI_PUBLIC_MAX    64 /* public keys that are kept */

/* The parts of a credential. */
enum { KMS_ALI_KEY_ID, KMS_ALI_SECRET, KMS_ALI_TOKEN };

struct kms_ali_public {
    char ref[KMS_KEY_REF_MAX];
    EVP_PKEY *key;
};

/* How each service is reached: a CA that is of one is trusted for that one alone. */
struct kms_ali_doors {
    struct kms_http_door *kms;
    struct kms_http_door *management; /* NULL: kms */
    struct kms_http_door *sts;        /* NULL: identity */
    struct kms_http_door *identity;   /* the metadata service, a credentials URI: by no proxy */
};

struct kms_backend {
    const struct kms_backend_conf *conf;
    const struct kms_alibaba_conf *ali;
    struct kms_ali_doors doors;
    struct kms_endpoints *endpoints;
    struct kms_endpoints *management; /* the very same, or the one that manages keys */
    struct kms_credential *credential;
    const char *chosen;   /* what "auto" took last; the one that fetches has it alone */
    bool chosen_missed;   /* it was not there when last looked for; likewise */
    pthread_mutex_t lock; /* guards the members below; never held across an exchange */
    struct kms_ali_public publics[KMS_ALI_PUBLIC_MAX];
    size_t next_public;
    struct kms_error trouble; /* why the last exchange failed; KMS_OK: it did not */
    bool asked;
};

/* ---- alibaba_request.c: the signature -------------------------------------------------------- */

#define KMS_ALI_HOST_MAX    256
#define KMS_ALI_DATE_SIZE   25
#define KMS_ALI_NONCE_BYTES 16
#define KMS_ALI_SIGNED_MAX  8

/* What a request's headers say; they depend on the endpoint and the credential. The caller sets the
 * first four, and wipes the authorization; the credential's part KMS_ALI_TOKEN may be NULL or "".
 */
struct kms_ali_signing {
    const char *action;
    const char *version;   /* of the API */
    struct kms_span query; /* what kms_acs3_query() made */
    const char *const *part;
    char host[KMS_ALI_HOST_MAX];
    char date[KMS_ALI_DATE_SIZE];
    char nonce[2 * KMS_ALI_NONCE_BYTES + 1];
    char payload_hash[KMS_ACS3_HASH_HEX];
    char authorization[KMS_ACS3_AUTH_MAX];
    struct kms_http_header headers[KMS_ALI_SIGNED_MAX + 2];
};

/* The prepare of struct kms_http_request, for each endpoint anew: another host is another
 * signature. @ctx is a struct kms_ali_signing that outlives the exchange; there is no body. */
enum kms_status kms_ali_prepare(void *ctx, const char *url, struct kms_http_request *request,
                                struct kms_error *err) KMS_MUST_CHECK;

/* ---- alibaba_call.c: one action ------------------------------------------------------------- */

struct kms_ali_ask {
    const char *action;
    struct kms_acs3_param params[KMS_ALI_PARAMS_MAX];
    size_t count;
    bool once; /* not idempotent */
};

/* What came; owned until kms_ali_reply_done(). */
struct kms_ali_reply {
    struct kms_http_response response;
    struct kms_json_doc *doc;
    struct kms_json root;
    const char *request_id;
};

#define KMS_ALI_REPLY_INIT                                                                         \
    {                                                                                              \
        .response = KMS_HTTP_RESPONSE_INIT                                                         \
    }

void kms_ali_param(struct kms_ali_ask *ask, const char *name, struct kms_span value);
void kms_ali_param_text(struct kms_ali_ask *ask, const char *name, const char *value);

/*
 * Signs, sends, reads. A credential that is refused is renewed, and the action asked once more. The
 * service's errors by kms_ali_error(). @ret is done with by the caller whatever comes back.
 */
enum kms_status kms_ali_call(struct kms_backend *b, struct kms_call *call,
                             const struct kms_ali_ask *ask,
                             struct kms_ali_reply *ret) KMS_MUST_CHECK;
/* An error of @call has the reply's request id afterwards, if it had none. */
void kms_ali_reply_done(struct kms_call *call, struct kms_ali_reply *reply);

/* A reply that we cannot take, with its request id. */
enum kms_status kms_ali_protocol(struct kms_call *call, const struct kms_ali_reply *reply,
                                 const char *action, const char *why) KMS_MUST_CHECK;

/* Field @field of the reply, base64, appended to @out: KMS_E_TOO_LARGE, and nothing written, when
 * the caller's room is less than there is. */
enum kms_status kms_ali_bytes(struct kms_call *call, const struct kms_ali_reply *reply,
                              const char *field, struct kms_buf *out) KMS_MUST_CHECK;

/* Bytes as base64 text in secure memory, for a parameter. */
enum kms_status kms_ali_base64(struct kms_span bytes, struct kms_blob *ret,
                               struct kms_error *err) KMS_MUST_CHECK;

/* ---- alibaba_error.c ------------------------------------------------------------------------ */

/*
 * What an error reply of @action means: fills @err with status, code, request id and a sentence.
 * @is_auth_error: another credential may help.
 */
enum kms_status kms_ali_error(const char *action, const struct kms_http_response *response,
                              struct kms_error *err, bool *ret_renew) KMS_MUST_CHECK;

/* The gateway's header field with the request's id; the first and only one that requests want. */
#define KMS_ALI_REQUEST_ID "x-acs-request-id"
/* Into @err, where its body does not say which request it is, or cannot be read. */
void kms_ali_name_request(const struct kms_http_response *response, struct kms_error *err);
/* The status that an error code stands for in @action; for tests. */
enum kms_status kms_ali_status_of(const char *action, unsigned http_status, const char *code);

/* ---- alibaba_keys.c, alibaba_versions.c, alibaba_list.c
 * ------------------------------------------------------------------------- */

/* What stands for the version in an HMAC key's ref: the service names none of them. */
#define KMS_ALI_NO_VERSION "hmac"
/* What stands for the version in a logical key's ref; KeyVersionIds are UUIDs. */
#define KMS_ALI_ANY_VERSION "any"

struct kms_ali_ref {
    char key[KMS_ALI_ID_MAX];
    char version[KMS_ALI_ID_MAX];
};

/* KMS_E_NOT_FOUND for a text that is none of our refs. */
enum kms_status kms_ali_ref_parse(const char *ref, struct kms_ali_ref *ret,
                                  struct kms_error *err) KMS_MUST_CHECK;
/* A KeyId or KeyVersionId: what fits a ref, and cannot be taken for anything else. */
bool kms_ali_is_id(const char *text, size_t len);
/* A text field copied; absent, where it may be, is "". */
enum kms_status kms_ali_take_text(const struct kms_json *object, const char *key, bool maybe,
                                  char *ret, size_t size, struct kms_error *err) KMS_MUST_CHECK;
/* The key's id; false when the texts are not ids or libcrypto cannot hash. */
bool kms_ali_identity(const char *key, const char *version, char ret_id[KMS_KEY_ID_MAX]);
/* The reply's KeyId must be @key; KeyVersionId to @ret_version. */
enum kms_status kms_ali_check_key(struct kms_call *call, const struct kms_ali_reply *reply,
                                  const char *action, const char *key,
                                  const char **ret_version) KMS_MUST_CHECK;

struct kms_ali_spec {
    const char *name; /* KeySpec */
    enum kms_key_type type;
    unsigned bits;
    enum kms_alg mac; /* of an HMAC key: the one that it is for */
};
const struct kms_ali_spec *kms_ali_spec_named(const char *name);
/* The symmetric keys, which Encrypt takes: all that the service tells of one kind of them it tells
 * of the other. */
static inline bool kms_ali_seals(enum kms_key_type type)
{
    return type == KMS_KEY_AES || type == KMS_KEY_SM4;
}

/* DescribeKey's or CreateKey's KeyMetadata. */
struct kms_ali_key {
    char id[KMS_ALI_ID_MAX];
    char arn[256];
    char primary[KMS_ALI_ID_MAX];    /* "": asymmetric, or without material yet */
    const struct kms_ali_spec *spec; /* NULL: a kind that we do not show */
    char spec_name[32];
    bool encrypts; /* else it signs */
    bool local;
    bool leaving;     /* scheduled for deletion */
    uint64_t seconds; /* when it was made; 0: that was not told */
};
enum kms_status kms_ali_key_read(const struct kms_json *metadata, struct kms_ali_key *ret,
                                 struct kms_error *err) KMS_MUST_CHECK;
/* KMS_E_NOT_FOUND when there is none. @name: a KeyId, an alias with "alias/", an ARN. */
enum kms_status kms_ali_describe(struct kms_backend *b, struct kms_call *call, const char *name,
                                 struct kms_ali_key *ret) KMS_MUST_CHECK;
#define KMS_ALI_PAGE_SIZE    100
#define KMS_ALI_PAGES_MAX    20 /* 2000 entries: more is an error, never a silent cut */
#define KMS_ALI_VERSIONS_MAX 256

struct kms_ali_version {
    char id[KMS_ALI_ID_MAX];
    uint64_t seconds;
};

struct kms_ali_versions {
    size_t count;
    size_t latest;
    struct kms_ali_version at[KMS_ALI_VERSIONS_MAX];
};

/* Reads one row of a list. */
typedef enum kms_status (*kms_ali_row)(void *ctx, const struct kms_json *row,
                                       struct kms_error *err);

/* A list that comes by pages. */
struct kms_ali_paging {
    const char *action;
    const char *key_id; /* NULL: the action takes none */
    const char *outer;
    const char *inner;
    kms_ali_row read;
    void *ctx;
};
enum kms_status kms_ali_pages(struct kms_backend *b, struct kms_call *call,
                              const struct kms_ali_paging *paging) KMS_MUST_CHECK;
/* All versions of a key; the caller frees them with free(). */
enum kms_status kms_ali_versions(struct kms_backend *b, struct kms_call *call,
                                 const struct kms_ali_key *key,
                                 struct kms_ali_versions **ret_versions) KMS_MUST_CHECK;
enum kms_status kms_ali_version_info(const struct kms_ali_key *key,
                                     const struct kms_ali_versions *versions, size_t at,
                                     const char *label, struct kms_key_info *ret,
                                     struct kms_error *err) KMS_MUST_CHECK;
/* Whether applications see one object, whatever its versions: the service chooses among them by
 * itself. (An HMAC key is one in any case.) */
bool kms_ali_is_logical(const struct kms_ali_key *key);
/* ... as which list_keys shows it, where that is wanted. */
enum kms_status kms_ali_logical_info(const struct kms_ali_key *key, const char *label,
                                     struct kms_key_info *ret,
                                     struct kms_error *err) KMS_MUST_CHECK;
/* The latest version of a key, as list_keys would show it. */
enum kms_status kms_ali_latest(struct kms_backend *b, struct kms_call *call,
                               const struct kms_ali_key *key, const char *label,
                               struct kms_key_info *ret_info) KMS_MUST_CHECK;
/* A date of the service in seconds since 1970; false when it is none. */
bool kms_ali_date(const char *text, uint64_t *ret_seconds);

enum kms_status kms_ali_list_keys(struct kms_backend *b, struct kms_call *call,
                                  const struct kms_key_filter *filter, kms_key_visit visit,
                                  void *ctx) KMS_MUST_CHECK;

/* ---- alibaba_seal.c, alibaba_rsa.c, alibaba_sign.c, alibaba_make.c: ops ---------------------- */

/* EncryptionContext's JSON for @aad and the configured entries; "" when there are none. */
enum kms_status kms_ali_context(const struct kms_alibaba_conf *ali, struct kms_span aad,
                                char ret_text[KMS_ALI_CONTEXT_MAX],
                                struct kms_error *err) KMS_MUST_CHECK;

enum kms_status kms_ali_encrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span plaintext,
                                struct kms_sealed *ret_sealed) KMS_MUST_CHECK;
enum kms_status kms_ali_decrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                const struct kms_params *params, struct kms_span ciphertext,
                                struct kms_buf *ret_plaintext) KMS_MUST_CHECK;
enum kms_status kms_ali_data_key(struct kms_backend *b, struct kms_call *call, const char *ref,
                                 const struct kms_params *params, size_t len,
                                 struct kms_buf *ret_key,
                                 struct kms_sealed *ret_sealed) KMS_MUST_CHECK;
enum kms_status kms_ali_rewrap(struct kms_backend *b, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span ciphertext,
                               struct kms_sealed *ret_sealed) KMS_MUST_CHECK;

enum kms_status kms_ali_rsa_encrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                    const struct kms_params *params, struct kms_span plaintext,
                                    struct kms_sealed *ret_sealed) KMS_MUST_CHECK;
enum kms_status kms_ali_rsa_decrypt(struct kms_backend *b, struct kms_call *call, const char *ref,
                                    const struct kms_params *params, struct kms_span ciphertext,
                                    struct kms_buf *ret_plaintext) KMS_MUST_CHECK;
/* The public key of a version, from the service once; the caller frees it. */
enum kms_status kms_ali_public(struct kms_backend *b, struct kms_call *call, const char *ref,
                               EVP_PKEY **ret_key) KMS_MUST_CHECK;
void kms_ali_publics_done(struct kms_backend *b);
enum kms_status kms_ali_public_key(struct kms_backend *b, struct kms_call *call, const char *ref,
                                   struct kms_buf *ret_spki) KMS_MUST_CHECK;

enum kms_status kms_ali_sign(struct kms_backend *b, struct kms_call *call, const char *ref,
                             const struct kms_params *params, struct kms_span input,
                             struct kms_buf *ret_signature) KMS_MUST_CHECK;
enum kms_status kms_ali_verify(struct kms_backend *b, struct kms_call *call, const char *ref,
                               const struct kms_params *params, struct kms_span input,
                               struct kms_span signature) KMS_MUST_CHECK;
/* An ECDSA signature in DER (RFC 3279 2.2.3) as r || s of 2 * @half bytes, and back into DER that
 * the caller frees with OPENSSL_free(). KMS_E_BAD_DATA. */
enum kms_status kms_ali_ecdsa_raw(struct kms_span der, size_t half,
                                  struct kms_buf *out) KMS_MUST_CHECK;

/* ---- alibaba_mac.c ---- */

enum kms_status kms_ali_mac(struct kms_backend *b, struct kms_call *call, const char *ref,
                            const struct kms_params *params, struct kms_span input,
                            struct kms_buf *ret_mac) KMS_MUST_CHECK;
bool kms_ali_is_mac(enum kms_alg alg);
enum kms_status kms_ali_verify_mac(struct kms_backend *b, struct kms_call *call, const char *ref,
                                   const struct kms_params *params, struct kms_span input,
                                   struct kms_span mac) KMS_MUST_CHECK;

enum kms_status kms_ali_generate(struct kms_backend *b, struct kms_call *call,
                                 const struct kms_key_template *tmpl,
                                 struct kms_key_info *ret_info) KMS_MUST_CHECK;
enum kms_status kms_ali_destroy(struct kms_backend *b, struct kms_call *call,
                                const char *ref) KMS_MUST_CHECK;
enum kms_status kms_ali_rotate(struct kms_backend *b, struct kms_call *call, const char *ref,
                               struct kms_key_info *ret_info) KMS_MUST_CHECK;

/* ---- alibaba_name.c -------------------------------------------------------------------------- */

enum kms_status kms_ali_schedule_deletion(struct kms_backend *b, struct kms_call *call,
                                          const char *key) KMS_MUST_CHECK;
/*
 * Gives the new key @key its @alias; @move: from a key that is to be deleted. May take three
 * seconds more than @call has, and another two to schedule the deletion of a key that gets no name.
 * The error names the key and says what has become of it.
 */
enum kms_status kms_ali_name_key(struct kms_backend *b, struct kms_call *call, const char *key,
                                 const char *alias, bool move) KMS_MUST_CHECK;

/* ---- alibaba_creds*.c: where the credential comes from --------------------------------------- */

/* A fetch of struct kms_credential_source; @ctx is the backend. */
enum kms_status kms_ali_fetch(void *ctx, const struct kms_http_wait *wait,
                              const struct kms_credential_value *old,
                              struct kms_credential_slot *slot,
                              struct kms_error *err) KMS_MUST_CHECK;
/* A setting: the configuration's, else the environment's @variable, else @otherwise. "" counts as
 * absent. */
const char *kms_ali_setting(const char *configured, const char *variable, const char *otherwise);
/* The variable has the vendor's word for yes, as its SDKs read it. */
bool kms_ali_is_true(const char *variable);
/* The name of the source that the configuration asks for; NULL: it is none. "auto" when absent. */
bool kms_ali_source_known(const char *name);

/* A role that is taken for a token, or by a key, which needs neither provider nor file; what is
 * NULL or 0 is the environment's, or the default. */
struct kms_ali_oidc {
    const char *role_arn, *provider_arn, *token_file, *session_name;
    const char *policy;     /* of the session: it takes rights away */
    const char *sts_region; /* where STS is asked ... */
    const char *sts_vpc;    /* ... "true": in the VPC, "false": not there */
    unsigned seconds;
};

/* Each source. An address or a role that is NULL is the environment's. */
enum kms_status kms_ali_from_rrsa(struct kms_backend *b, const struct kms_http_wait *wait,
                                  const struct kms_ali_oidc *oidc, struct kms_credential_slot *slot,
                                  struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_ali_from_ecs(struct kms_backend *b, const struct kms_http_wait *wait,
                                 const char *role, struct kms_credential_slot *slot,
                                 struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_ali_from_uri(struct kms_backend *b, const struct kms_http_wait *wait,
                                 const char *uri, struct kms_credential_slot *slot,
                                 struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_ali_from_cli(struct kms_backend *b, const struct kms_http_wait *wait,
                                 struct kms_credential_slot *slot,
                                 struct kms_error *err) KMS_MUST_CHECK;
/* ... if "auto" stops there, with one look at the file; *ret_set_up false: @err says why not. */
enum kms_status kms_ali_from_cli_maybe(struct kms_backend *b, const struct kms_http_wait *wait,
                                       bool *ret_set_up, struct kms_credential_slot *slot,
                                       struct kms_error *err) KMS_MUST_CHECK;
enum kms_status kms_ali_from_profile(struct kms_backend *b, const struct kms_http_wait *wait,
                                     struct kms_credential_slot *slot,
                                     struct kms_error *err) KMS_MUST_CHECK;
/* Whether "auto" stops there: a file that is named or found. False: @why says why not. */
bool kms_ali_has_profile(struct kms_backend *b, struct kms_error *why);
/* STS's answer to @action: credentials, or KMS_E_AUTH for all that it may say of identities. */
enum kms_status kms_ali_read_sts(const char *action, const struct kms_http_response *response,
                                 struct kms_credential_slot *slot,
                                 struct kms_error *err) KMS_MUST_CHECK;
/* The way to STS. */
struct kms_http_door *kms_ali_sts_door(const struct kms_backend *b);
/* AccessKeyId, AccessKeySecret, SecurityToken, Expiration of @object. */
enum kms_status kms_ali_offer_sts(const struct kms_json *object, struct kms_credential_slot *slot,
                                  struct kms_error *err) KMS_MUST_CHECK;
/* A key that lasts, which is read anew each minute; @token may be NULL. */
enum kms_status kms_ali_offer_static(const char *id, const char *secret, const char *token,
                                     struct kms_credential_slot *slot,
                                     struct kms_error *err) KMS_MUST_CHECK;

/* ---- alibaba_creds_file.c: what profiles are made of ------------------------------------------
 */

#define KMS_ALI_PROFILE_FILE_MAX 65536 /* bytes */

enum kms_ali_way {
    KMS_ALI_BY_KEY,
    KMS_ALI_BY_TOKEN,
    KMS_ALI_BY_ECS,
    KMS_ALI_BY_OIDC,
    KMS_ALI_BY_URI,
    KMS_ALI_BY_ROLE /* that the key takes */
};

/* A profile of either file; NULL and "" are absent. The texts are the file's content. */
struct kms_ali_profile {
    char where[KMS_ERROR_TEXT_MAX / 2]; /* "cli: /path: profile default", for error texts */
    enum kms_ali_way way;
    const char *key_id, *secret, *token;
    const char *ecs_role;
    const char *uri;
    const char *external_id;
    struct kms_ali_oidc oidc; /* a role, however it is taken */
};

/* alibaba_creds_role.c: what STS gives for @profile's role to its key, AssumeRole. Errors name
 * neither file nor profile. */
enum kms_status kms_ali_from_role(struct kms_backend *b, const struct kms_http_wait *wait,
                                  const struct kms_ali_profile *profile,
                                  struct kms_credential_slot *slot,
                                  struct kms_error *err) KMS_MUST_CHECK;

/*
 * The file to read: @configured, else what @variable names, else the first of @places (NULL ends
 * them) that is in HOME. False: there is none, and @why, which begins with @source, says so. What
 * is named is read in any case, and what cannot be looked at, as a home that systemd hides, is not
 * there.
 */
bool kms_ali_find_file(const char *source, const char *configured, const char *variable,
                       const char *const *places, char ret_path[PATH_MAX], struct kms_error *why);
/* Errors begin with @profile's where. */
enum kms_status kms_ali_use_profile(struct kms_backend *b, const struct kms_http_wait *wait,
                                    const struct kms_ali_profile *profile,
                                    struct kms_credential_slot *slot,
                                    struct kms_error *err) KMS_MUST_CHECK;

/* ---- alibaba_doors.c ------------------------------------------------------------------------- */

/* What a call would be refused for later, by a text that does not name the address: KMS_E_INVALID,
 * "@what must begin with https://". NULL and "" are fine. */
enum kms_status kms_ali_check_url(const char *what, const char *url, bool plain_ok,
                                  struct kms_error *err) KMS_MUST_CHECK;

/* Base URLs. False: it has no room. */
bool kms_ali_kms_url(const struct kms_alibaba_conf *ali, char *ret_url, size_t size);
/* *ret_same: where keys are used, too, with all that is a fallback there. */
bool kms_ali_management_url(const struct kms_alibaba_conf *ali, char *ret_url, size_t size,
                            bool *ret_same);
/* Configured, injected by ack-pod-identity-webhook, or the region's: that of @role, if it has one.
 */
bool kms_ali_sts_url(const struct kms_alibaba_conf *ali, const struct kms_ali_oidc *role,
                     char *ret_url, size_t size);
unsigned kms_ali_connections(const struct kms_alibaba_conf *ali);

enum kms_status kms_ali_open_doors(const struct kms_backend_conf *conf,
                                   struct kms_ali_doors *ret_doors,
                                   struct kms_error *err) KMS_MUST_CHECK;
void kms_ali_close_doors(struct kms_ali_doors *doors);

/* ---- alibaba.c ------------------------------------------------------------------------------- */

/* open over doors that the backend takes over; tests bring their own. */
enum kms_status kms_ali_open_over(const struct kms_backend_conf *conf,
                                  const struct kms_ali_doors *doors,
                                  struct kms_backend **ret_backend,
                                  struct kms_error *err) KMS_MUST_CHECK;

#endif
