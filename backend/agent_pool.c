/* SPDX-License-Identifier: Apache-2.0 */
/* The connections of one process to its agent, and the secure memory that each has. */
#include "backend/agent_parts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/secure.h"

#define MEMORY_MIN ((size_t)16 * 1024) /* most requests and replies fit */

/* ---- one connection ------------------------------------------------------------------------- */

/* Hosts that become daemons close all descriptors, and then open their own with the same numbers.
 */
static bool still_ours(const struct kms_agent_conn *conn)
{
    struct stat st;

    return conn->fd >= 0 && fstat(conn->fd, &st) == 0 && st.st_dev == conn->dev &&
           st.st_ino == conn->ino;
}

void kms_agent_conn_close(struct kms_agent_conn *conn)
{
    if (still_ours(conn)) {
        (void)close(conn->fd);
    }
    conn->fd = -1;
    conn->used = false;
}

void kms_agent_conn_wipe(struct kms_agent_conn *conn)
{
    kms_wipe(conn->io.data, conn->dirty > conn->io.len ? conn->dirty : conn->io.len);
    kms_wipe(conn->arena.data, conn->arena.len);
    conn->io.len = 0;
    conn->arena.len = 0;
    conn->dirty = 0;
}

enum kms_status kms_agent_conn_reserve(struct kms_buf *buf, size_t size, struct kms_error *err)
{
    size_t cap = MEMORY_MIN;
    uint8_t *data;

    if (size <= buf->cap) {
        return KMS_OK;
    }
    while (cap < size) {
        cap *= 2;
    }
    data = kms_secure_new(cap);
    if (data == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for a message of %zu bytes", size);
    }
    if (buf->len > 0) {
        memcpy(data, buf->data, buf->len);
    }
    kms_secure_free(buf->data);
    buf->data = data;
    buf->cap = cap;
    return KMS_OK;
}

static void conn_free(struct kms_agent_conn *conn)
{
    if (conn != NULL) {
        kms_agent_conn_close(conn);
        kms_secure_free(conn->io.data); /* wiped */
        kms_secure_free(conn->arena.data);
        free(conn);
    }
}

static struct kms_agent_conn *conn_new(struct kms_error *err)
{
    struct kms_agent_conn *conn = calloc(1, sizeof(*conn));

    if (conn == NULL) {
        (void)kms_error_set(err, KMS_E_NOMEM, "no memory for a connection");
        return NULL;
    }
    conn->fd = -1;
    if (kms_agent_conn_reserve(&conn->io, MEMORY_MIN, err) != KMS_OK ||
        kms_agent_conn_reserve(&conn->arena, MEMORY_MIN, err) != KMS_OK) {
        conn_free(conn);
        return NULL;
    }
    return conn;
}

/* ---- the pool ------------------------------------------------------------------------------- */

static int init_locks(struct kms_agent_pool *pool)
{
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);

    if (error == 0) {
        (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        error = pthread_cond_init(&pool->given, &attributes);
        (void)pthread_condattr_destroy(&attributes);
    }
    return error == 0 ? pthread_mutex_init(&pool->lock, NULL) : error;
}

enum kms_status kms_agent_pool_init(struct kms_agent_pool *pool, unsigned idle_max)
{
    memset(pool, 0, sizeof(*pool));
    pool->idle_max = idle_max < KMS_AGENT_CONNECTIONS_MAX ? idle_max : KMS_AGENT_CONNECTIONS_MAX;
    return init_locks(pool) == 0 ? KMS_OK : KMS_E_NOMEM;
}

static void free_all(struct kms_agent_pool *pool)
{
    for (size_t i = 0; i < KMS_AGENT_CONNECTIONS_MAX; i++) {
        conn_free(pool->all[i]);
        pool->all[i] = NULL;
    }
    pool->idle = NULL;
    pool->idle_count = 0;
    pool->open_count = 0;
}

void kms_agent_pool_done(struct kms_agent_pool *pool)
{
    free_all(pool);
    (void)pthread_cond_destroy(&pool->given);
    (void)pthread_mutex_destroy(&pool->lock);
}

/* The parent's threads do not exist here, so their connections have no owner; and whoever held the
 * lock does not give it back. */
void kms_agent_pool_forked(struct kms_agent_pool *pool)
{
    free_all(pool);
    (void)init_locks(pool);
}

static void release_locked(struct kms_agent_pool *pool, struct kms_agent_conn *conn)
{
    pool->all[conn->slot] = NULL;
    pool->open_count--;
}

static struct kms_agent_conn *pop_locked(struct kms_agent_pool *pool)
{
    struct kms_agent_conn *conn = pool->idle;

    if (conn != NULL) {
        pool->idle = conn->next;
        pool->idle_count--;
        conn->next = NULL;
    }
    return conn;
}

/* A place for one more, once there is one. */
static enum kms_status wait_for_slot_locked(struct kms_agent_pool *pool,
                                            const struct kms_agent_wait *wait,
                                            struct kms_error *err)
{
    while (pool->open_count == KMS_AGENT_CONNECTIONS_MAX && pool->idle == NULL) {
        uint64_t now = kms_now_ns();
        uint64_t until = now + 50 * KMS_NS_PER_MS; /* to notice that it was cancelled */
        struct timespec at;

        if (wait->deadline_ns <= now || (wait->cancelled != NULL && atomic_load(wait->cancelled))) {
            return kms_error_set(err, KMS_E_BUSY, "all %u connections to the agent are in use",
                                 KMS_AGENT_CONNECTIONS_MAX);
        }
        until = until < wait->deadline_ns ? until : wait->deadline_ns;
        at.tv_sec = (time_t)(until / KMS_NS_PER_S);
        at.tv_nsec = (long)(until % KMS_NS_PER_S);
        (void)pthread_cond_timedwait(&pool->given, &pool->lock, &at);
    }
    return KMS_OK;
}

static enum kms_status add_locked(struct kms_agent_pool *pool, struct kms_agent_conn **ret_conn,
                                  struct kms_error *err)
{
    struct kms_agent_conn *conn = conn_new(err);
    unsigned slot = 0;

    if (conn == NULL) {
        return KMS_E_NOMEM;
    }
    while (pool->all[slot] != NULL) {
        slot++; /* wait_for_slot_locked() says that there is one */
    }
    conn->slot = slot;
    pool->all[slot] = conn;
    pool->open_count++;
    *ret_conn = conn;
    return KMS_OK;
}

enum kms_status kms_agent_pool_take(struct kms_agent_pool *pool, const struct kms_agent_wait *wait,
                                    struct kms_agent_conn **ret_conn, struct kms_error *err)
{
    struct kms_agent_conn *conn = NULL;
    enum kms_status status;

    (void)pthread_mutex_lock(&pool->lock);
    status = wait_for_slot_locked(pool, wait, err);
    if (status == KMS_OK) {
        conn = pop_locked(pool);
        status = conn == NULL ? add_locked(pool, &conn, err) : KMS_OK;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    if (status != KMS_OK) {
        return status;
    }
    /* not ours, or the server is about to close it: the memory is still good */
    if (conn->fd >= 0 && (!still_ours(conn) || kms_deadline_passed(conn->idle_until_ns))) {
        kms_agent_conn_close(conn);
    }
    *ret_conn = conn;
    return KMS_OK;
}

void kms_agent_pool_give(struct kms_agent_pool *pool, struct kms_agent_conn *conn, bool good)
{
    struct kms_agent_conn *surplus = NULL;

    if (conn == NULL) {
        return;
    }
    kms_agent_conn_wipe(conn);
    if (good) {
        conn->used = true;
        conn->idle_until_ns = kms_deadline_in(conn->idle_ns);
    } else {
        kms_agent_conn_close(conn);
    }
    (void)pthread_mutex_lock(&pool->lock);
    if (good && pool->idle_count < pool->idle_max) {
        conn->next = pool->idle;
        pool->idle = conn;
        pool->idle_count++;
    } else {
        release_locked(pool, conn);
        surplus = conn;
    }
    (void)pthread_cond_signal(&pool->given);
    (void)pthread_mutex_unlock(&pool->lock);
    conn_free(surplus);
}

void kms_agent_pool_drop_old(struct kms_agent_pool *pool, uint64_t generation)
{
    struct kms_agent_conn *old = NULL;

    (void)pthread_mutex_lock(&pool->lock);
    for (struct kms_agent_conn **link = &pool->idle; *link != NULL;) {
        struct kms_agent_conn *conn = *link;

        if (conn->generation == generation) {
            link = &conn->next;
            continue;
        }
        *link = conn->next;
        pool->idle_count--;
        release_locked(pool, conn);
        conn->next = old;
        old = conn;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    while (old != NULL) {
        struct kms_agent_conn *next = old->next;

        conn_free(old);
        old = next;
    }
}

void kms_agent_pool_count(struct kms_agent_pool *pool, unsigned *ret_open, unsigned *ret_busy)
{
    (void)pthread_mutex_lock(&pool->lock);
    *ret_open = pool->open_count;
    *ret_busy = pool->open_count - pool->idle_count;
    (void)pthread_mutex_unlock(&pool->lock);
}
