/* SPDX-License-Identifier: Apache-2.0 */
#include "kmsbridge/monitor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "common/numbers.h"
#include "kmsbridge/socket.h"

#define CONNECTIONS_MAX   128   /* all from one address as a rule: no limit for each */
#define CONNECTION_MEMORY 16384 /* bytes of request */
#define IDLE_SECONDS      5
#define BACKLOG           128

struct kms_monitor {
    struct kms_monitor_source source;
    struct MHD_Daemon *http;
    struct kms_socket *unix_socket; /* keeps lock and path; NULL for TCP */
};

/* "127.0.0.1:8780" or "[::1]:8780" */
static bool parse_tcp(const char *listen, struct sockaddr_storage *ret_addr, socklen_t *ret_len)
{
    char host[64];
    const char *colon = strrchr(listen, ':');
    uint64_t port = 0;
    if (colon == NULL || (size_t)(colon - listen) >= sizeof host ||
        kms_parse_u64(colon + 1, 0, 65535, &port) != KMS_OK) {
        return false;
    }
    size_t len = (size_t)(colon - listen);
    bool v6 = len > 2 && listen[0] == '[' && listen[len - 1] == ']';
    memcpy(host, listen + (v6 ? 1 : 0), len - (v6 ? 2 : 0));
    host[len - (v6 ? 2 : 0)] = '\0';
    memset(ret_addr, 0, sizeof *ret_addr);
    if (v6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret_addr;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)port);
        *ret_len = sizeof *in6;
        return inet_pton(AF_INET6, host, &in6->sin6_addr) == 1;
    }
    struct sockaddr_in *in = (struct sockaddr_in *)ret_addr;
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    *ret_len = sizeof *in;
    return inet_pton(AF_INET, host, &in->sin_addr) == 1;
}

static enum kms_status listen_tcp(const char *listen_text, int *ret_fd, struct kms_error *err)
{
    struct sockaddr_storage addr;
    socklen_t len = 0;
    const int on = 1;
    if (!parse_tcp(listen_text, &addr, &len)) {
        return kms_error_set(err, KMS_E_INVALID, "monitor.listen: %s is not an address and port",
                             listen_text);
    }
    int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, (const struct sockaddr *)&addr, len) != 0 || listen(fd, BACKLOG) != 0) {
        int error = errno;
        if (fd >= 0) {
            close(fd);
        }
        return kms_error_set(err, error == EADDRINUSE ? KMS_E_EXISTS : KMS_E_INTERNAL,
                             "monitor.listen: %s: %s", listen_text, strerror(error));
    }
    *ret_fd = fd;
    return KMS_OK;
}

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned code, const char *type,
                              char *text, size_t len)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    enum MHD_Result result = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return result;
}

static unsigned print_page(struct kms_monitor *monitor, const char *url, FILE *out)
{
    const struct kms_monitor_source *source = &monitor->source;
    if (strcmp(url, "/livez") == 0) {
        return source->live(source->ctx, out) ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    if (strcmp(url, "/readyz") == 0) {
        return source->ready(source->ctx, out) ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    }
    if (strcmp(url, "/metrics") == 0) {
        source->metrics(source->ctx, out);
        return MHD_HTTP_OK;
    }
    fputs("try /livez, /readyz or /metrics\n", out);
    return MHD_HTTP_NOT_FOUND;
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **state)
{
    static int seen;
    (void)version;
    (void)upload;
    if (*state == NULL) { /* headers are in; the body, if any, is dropped */
        *state = &seen;
        return MHD_YES;
    }
    if (*upload_size != 0) {
        *upload_size = 0;
        return MHD_YES;
    }
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (out == NULL) {
        return MHD_NO;
    }
    unsigned code = MHD_HTTP_METHOD_NOT_ALLOWED;
    if (strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0) {
        code = print_page(ctx, url, out);
    }
    if (fclose(out) != 0) {
        free(text);
        return MHD_NO;
    }
    return answer(connection, code,
                  strcmp(url, "/metrics") == 0 ? "text/plain; version=0.0.4; charset=utf-8"
                                               : "text/plain; charset=utf-8",
                  text, len);
}

enum kms_status kms_monitor_start(const char *listen, const struct kms_monitor_source *source,
                                  struct kms_monitor **ret_monitor, struct kms_error *err)
{
    struct kms_monitor *monitor = calloc(1, sizeof *monitor);
    if (monitor == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "monitor: out of memory");
    }
    monitor->source = *source;
    int fd = -1;
    enum kms_status status;
    if (strncmp(listen, "unix:", 5) == 0) {
        const struct kms_socket_conf conf = {
            .path = listen + 5, .mode = 0660, .owner = (uid_t)-1, .group = (gid_t)-1};
        status = kms_socket_open(&conf, &monitor->unix_socket, err);
        if (status == KMS_OK) {
            fd = kms_socket_dup(monitor->unix_socket);
        }
        if (status == KMS_OK && fd < 0) { /* libmicrohttpd would open a TCP socket instead */
            status = kms_error_set(err, KMS_E_INTERNAL, "monitor.listen: %s: %s", listen,
                                   strerror(errno));
        }
    } else {
        status = listen_tcp(listen, &fd, err);
    }
    if (status != KMS_OK) {
        kms_socket_close(monitor->unix_socket);
        free(monitor);
        return status;
    }
    monitor->http = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL, on_request,
        monitor, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS, MHD_OPTION_END);
    if (monitor->http == NULL) {
        close(fd);
        kms_socket_close(monitor->unix_socket);
        free(monitor);
        return kms_error_set(err, KMS_E_INTERNAL, "monitor.listen: %s: cannot start the server",
                             listen);
    }
    *ret_monitor = monitor;
    return KMS_OK;
}

void kms_monitor_stop(struct kms_monitor *monitor)
{
    if (monitor == NULL) {
        return;
    }
    MHD_stop_daemon(monitor->http);
    kms_socket_close(monitor->unix_socket);
    free(monitor);
}
