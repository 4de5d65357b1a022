/* SPDX-License-Identifier: Apache-2.0 */
/* The CA certificates of a door: read once for all connections, and again when they change. */
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "backend/rest/http_trust.h"
#include "tests/unit/http_callers.h"
#include "tests/unit/scratch.h"
#include "tests/unit/unit.h"

/* ---- certificates ------------------------------------------------------------------------- */

struct authority {
    EVP_PKEY *key;
    X509 *certificate;
};

static struct authority root, other, middle, leaf; /* root signed middle, which signed leaf */

static void make(struct authority *authority, const char *name, const struct authority *issuer,
                 const char *constraints)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, constraints);
    X509_NAME *subject = X509_NAME_new();
    bool good = subject != NULL && extension != NULL;

    issuer = issuer == NULL ? authority : issuer;
    authority->key = EVP_EC_gen("P-256");
    authority->certificate = X509_new();
    good = good &&
           X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                                      -1, 0) == 1 &&
           X509_set_version(authority->certificate, X509_VERSION_3) == 1 &&
           ASN1_INTEGER_set(X509_get_serialNumber(authority->certificate), 1) == 1 &&
           X509_gmtime_adj(X509_getm_notBefore(authority->certificate), -60) != NULL &&
           X509_gmtime_adj(X509_getm_notAfter(authority->certificate), 3600) != NULL &&
           X509_set_subject_name(authority->certificate, subject) == 1 &&
           X509_set_issuer_name(authority->certificate,
                                X509_get_subject_name(issuer->certificate)) == 1 &&
           X509_set_pubkey(authority->certificate, authority->key) == 1 &&
           X509_add_ext(authority->certificate, extension, -1) == 1 &&
           X509_sign(authority->certificate, issuer->key, EVP_sha256()) > 0;
    X509_EXTENSION_free(extension);
    X509_NAME_free(subject);
    CU_ASSERT_FATAL(good);
}

static void done(struct authority *authority)
{
    X509_free(authority->certificate);
    EVP_PKEY_free(authority->key);
}

/* Over a new file, as who replaces one does. */
static const char *write_pem(const char *name, const X509 *certificate)
{
    const char *temporary = scratch_path("temporary");
    const char *path = scratch_path(name);
    FILE *file = fopen(temporary, "we");

    CU_ASSERT_FATAL(file != NULL && PEM_write_X509(file, certificate) == 1 && fclose(file) == 0);
    CU_ASSERT_EQUAL_FATAL(rename(temporary, path), 0);
    return path;
}

static void make_all(void)
{
    if (root.key == NULL) {
        make(&root, "root", NULL, "CA:TRUE");
        make(&other, "other", NULL, "CA:TRUE");
        make(&middle, "middle", &root, "CA:TRUE");
        make(&leaf, "leaf", &middle, "CA:FALSE");
    }
}

/* ---- one store ------------------------------------------------------------------------------ */

static enum kms_status give(struct kms_http_trust *trust, X509_STORE **ret_store,
                            struct kms_error *err)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    enum kms_status status = KMS_OK;

    CU_ASSERT_PTR_NOT_NULL_FATAL(context);
    status = kms_http_trust_give(trust, context, err);
    if (status == KMS_OK) {
        X509_STORE *chain = NULL;

        (void)SSL_CTX_get0_verify_cert_store(context, ret_store);
        (void)SSL_CTX_get0_chain_cert_store(context, &chain);
        CU_ASSERT_PTR_EQUAL(chain, *ret_store);
        (void)X509_STORE_up_ref(*ret_store);
    }
    SSL_CTX_free(context);
    return status;
}

/* Whether it is believed with what @trust gives; @between may be NULL. */
static bool believes(struct kms_http_trust *trust, X509 *certificate, X509 *between)
{
    struct kms_error error = KMS_ERROR_INIT;
    X509_STORE *store = NULL;
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    STACK_OF(X509) *chain = sk_X509_new_null();
    bool good = false;

    CU_ASSERT_EQUAL_FATAL(give(trust, &store, &error), KMS_OK);
    if (between != NULL) {
        (void)sk_X509_push(chain, between);
    }
    good = X509_STORE_CTX_init(context, store, certificate, chain) == 1 &&
           X509_verify_cert(context) == 1;
    sk_X509_free(chain);
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    return good;
}

static void all_connections_share_one(void)
{
    struct kms_error error = KMS_ERROR_INIT;
    struct kms_http_trust *trust = NULL;
    X509_STORE *first = NULL, *second = NULL, *third = NULL;

    make_all();
    trust = kms_http_trust_new(write_pem("trusted.pem", root.certificate), NULL);
    CU_ASSERT_EQUAL_FATAL(give(trust, &first, &error), KMS_OK);
    CU_ASSERT_EQUAL_FATAL(give(trust, &second, &error), KMS_OK);
    CU_ASSERT_PTR_EQUAL(first, second);
    CU_ASSERT_TRUE(believes(trust, middle.certificate, NULL));
    CU_ASSERT_FALSE(believes(trust, other.certificate, NULL));
    (void)write_pem("trusted.pem", other.certificate);
    CU_ASSERT_EQUAL_FATAL(give(trust, &third, &error), KMS_OK);
    CU_ASSERT_PTR_NOT_EQUAL(first, third);
    CU_ASSERT_FALSE(believes(trust, middle.certificate, NULL));
    CU_ASSERT_TRUE(believes(trust, other.certificate, NULL));
    X509_STORE_free(first);
    X509_STORE_free(second);
    X509_STORE_free(third);
    kms_http_trust_free(trust);
}

static void chains_are_followed(void)
{
    struct kms_http_trust *trust = NULL;

    make_all();
    trust = kms_http_trust_new(write_pem("root.pem", root.certificate), NULL);
    CU_ASSERT_TRUE(believes(trust, leaf.certificate, middle.certificate));
    CU_ASSERT_FALSE(believes(trust, leaf.certificate, NULL));
    kms_http_trust_free(trust);
    trust = kms_http_trust_new(write_pem("middle.pem", middle.certificate), NULL);
    CU_ASSERT_TRUE(believes(trust, leaf.certificate, NULL)); /* though it is no root */
    kms_http_trust_free(trust);
}

static void a_directory_is_looked_into(void)
{
    struct kms_http_trust *trust = NULL;
    char name[32];

    make_all();
    (void)snprintf(name, sizeof(name), "%08lx.0", X509_subject_name_hash(root.certificate));
    (void)write_pem(name, root.certificate);
    trust = kms_http_trust_new(write_pem("trusted.pem", other.certificate), scratch_path("."));
    CU_ASSERT_TRUE(believes(trust, middle.certificate, NULL));
    CU_ASSERT_TRUE(believes(trust, other.certificate, NULL));
    CU_ASSERT_FALSE(believes(trust, leaf.certificate, NULL));
    kms_http_trust_free(trust);
    trust = kms_http_trust_new(NULL, scratch_path("."));
    CU_ASSERT_TRUE(believes(trust, middle.certificate, NULL));
    CU_ASSERT_FALSE(believes(trust, other.certificate, NULL));
    kms_http_trust_free(trust);
    (void)unlink(scratch_path(name));
}

/* ---- files that are none -------------------------------------------------------------------- */

static void bad_files_are_named(void)
{
    static const struct {
        const char *label;
        const char *content; /* NULL: there is no file */
    } rows[] = {
        {"missing", NULL},
        {"empty", ""},
        {"no PEM", "hello\n"},
        {"cut off", "-----BEGIN CERTIFICATE-----\nMIIB\n"},
    };
    struct kms_http_trust *trust = kms_http_trust_new(scratch_path("bad.pem"), NULL);

    make_all();
    for (size_t i = 0; i < UNIT_COUNT(rows); i++) {
        struct kms_error error = KMS_ERROR_INIT;
        X509_STORE *store = NULL;

        (void)write_pem("bad.pem", root.certificate);
        CU_ASSERT_TRUE(believes(trust, middle.certificate, NULL));
        (void)unlink(scratch_path("bad.pem"));
        if (rows[i].content != NULL) {
            (void)scratch_file("bad.pem", 0600, rows[i].content, strlen(rows[i].content));
        }
        UNIT_CHECK(rows[i].label, give(trust, &store, &error) == KMS_E_INVALID);
        UNIT_CHECK(error.text, strstr(error.text, "/bad.pem: ") != NULL);
    }
    kms_http_trust_free(trust);
}

/* As of a file that others may not read, which a test of root's cannot have. */
static void what_the_system_says_is_told(void)
{
    struct kms_http_trust *trust = NULL;
    struct kms_error error = KMS_ERROR_INIT;
    X509_STORE *store = NULL;
    struct rlimit was;
    enum kms_status status = KMS_OK;

    make_all();
    trust = kms_http_trust_new(write_pem("limit.pem", root.certificate), NULL);
    CU_ASSERT_EQUAL_FATAL(getrlimit(RLIMIT_NOFILE, &was), 0);
    CU_ASSERT_EQUAL_FATAL(setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, was.rlim_max}), 0);
    status = give(trust, &store, &error);
    CU_ASSERT_EQUAL_FATAL(setrlimit(RLIMIT_NOFILE, &was), 0);
    CU_ASSERT_EQUAL(status, KMS_E_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(error.text, "/limit.pem: Too many open files"));
    CU_ASSERT_TRUE(believes(trust, middle.certificate, NULL));
    kms_http_trust_free(trust);
}

/* ---- through the door ----------------------------------------------------------------------- */

static void the_door_sees_the_file_as_it_is(void)
{
    struct https_server *server = https_server_start(false);
    const char *path = write_pem("door.pem", root.certificate);
    const struct kms_http_conf conf = {.name = "test", .ca_file = path};
    struct caller caller = {.server = server, .method = KMS_HTTP_GET, .path = "/x", .fresh = true};
    struct kms_error error = KMS_ERROR_INIT;
    X509 *servers = NULL;
    FILE *file = fopen(callers_ca_file, "re");

    CU_ASSERT_PTR_NOT_NULL_FATAL(server);
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    servers = PEM_read_X509(file, NULL, NULL, NULL);
    (void)fclose(file);
    CU_ASSERT_PTR_NOT_NULL_FATAL(servers);
    CU_ASSERT_EQUAL_FATAL(kms_http_open(&conf, &caller.door, &error), KMS_OK);
    caller_ask(&caller); /* the file has another CA */
    CU_ASSERT_EQUAL(caller.status, KMS_E_PROTOCOL);
    (void)write_pem("door.pem", servers);
    caller_ask(&caller);
    CU_ASSERT_EQUAL(caller.status, KMS_OK);
    CU_ASSERT_TRUE(caller.is_mine);
    (void)unlink(scratch_path("door.pem"));
    caller_ask(&caller);
    CU_ASSERT_EQUAL(caller.status, KMS_E_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(caller.error.text, "/door.pem: No such file"));
    (void)write_pem("door.pem", servers);
    caller_ask(&caller);
    CU_ASSERT_EQUAL(caller.status, KMS_OK);
    kms_http_door_close(caller.door);
    https_server_stop(server);
    X509_free(servers);
}

static const struct unit_test tests[] = {
    {"all connections share one store", all_connections_share_one},
    {"chains are followed", chains_are_followed},
    {"a directory is looked into", a_directory_is_looked_into},
    {"bad files are named", bad_files_are_named},
    {"what the system says is told", what_the_system_says_is_told},
    {"the door sees the file as it is", the_door_sees_the_file_as_it_is},
};

int main(void)
{
    int code = callers_main("test_rest_trust", tests, UNIT_COUNT(tests));

    done(&root);
    done(&other);
    done(&middle);
    done(&leaf);
    return code;
}
