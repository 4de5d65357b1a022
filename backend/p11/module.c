/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/p11/module.h"

#include <dlfcn.h>
#include <p11-kit/p11-kit.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/p11/ckr.h"
#include "common/clock.h"
#include "common/span.h"

struct kms_p11_module {
    struct kms_p11_module *next;
    void *library; /* dlopen's handle: one for all paths to a file */
    char *name;    /* what its first user called it */
    const CK_FUNCTION_LIST *functions;
    unsigned users;  /* this and the next two: guarded by modules_lock */
    char *init_args; /* may be NULL */
    bool starting;   /* one thread is in C_Finalize or C_Initialize, or about to be */
    bool initialised;
    atomic_bool was_initialised; /* by another one here: it may be that one's library */
    atomic_uint_fast64_t epoch;  /* 0 while closed; even a closed module remembers last_epoch */
    uint64_t last_epoch;
    atomic_uint inside;
};

/* The modules that this process has loaded; they stay. */
static pthread_mutex_t modules_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kms_p11_module *modules;

/* The file, and the pReserved string if none is given, of p11-kit's module @name. */
static char *path_by_name(const char *name, char **init_args)
{
    CK_FUNCTION_LIST **list = p11_kit_modules_load(NULL, P11_KIT_MODULE_UNMANAGED);
    CK_FUNCTION_LIST *found = NULL;
    char *path = NULL;

    if (list == NULL) {
        return NULL;
    }
    found = p11_kit_module_for_name(list, name);
    if (found != NULL) {
        path = p11_kit_module_get_filename(found);
        if (*init_args == NULL) {
            *init_args = p11_kit_config_option(found, "x-init-reserved");
        }
    }
    p11_kit_modules_release(list);
    return path;
}

/* The library of @name, and what is to be its pReserved. */
static enum kms_status load(const char *name, char **init_args, void **ret_library,
                            struct kms_error *err)
{
    char *path = strchr(name, '/') != NULL ? strdup(name) : path_by_name(name, init_args);
    void *library = NULL;
    enum kms_status status = KMS_OK;

    if (path == NULL) {
        return kms_error_set(err, KMS_E_UNAVAILABLE,
                             "PKCS#11 module \"%s\" is neither a path nor known to p11-kit", name);
    }
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        status = kms_error_set(err, KMS_E_UNAVAILABLE, "PKCS#11 module \"%s\" cannot be loaded: %s",
                               name, dlerror());
    } else {
        *ret_library = library;
    }
    free(path);
    return status;
}

static enum kms_status get_functions(const char *name, void *library,
                                     const CK_FUNCTION_LIST **ret_functions, struct kms_error *err)
{
    CK_C_GetFunctionList get = NULL;
    CK_FUNCTION_LIST *functions = NULL;
    CK_RV rv = CKR_OK;

    /* POSIX's way to turn an object pointer into a function pointer. */
    *(void **)&get = dlsym(library, "C_GetFunctionList");
    if (get == NULL) {
        return kms_error_set(err, KMS_E_UNAVAILABLE,
                             "\"%s\" is no PKCS#11 module: it has no C_GetFunctionList", name);
    }
    rv = get(&functions);
    if (rv != CKR_OK) {
        return kms_ckr_error(err, name, "C_GetFunctionList", rv);
    }
    if (functions == NULL || functions->version.major < 2) {
        return kms_error_set(err, KMS_E_UNAVAILABLE,
                             "PKCS#11 module \"%s\" gives no function list of version 2", name);
    }
    *ret_functions = functions;
    return KMS_OK;
}

/* The module of @library, which is put in the list if it is not there. NULL: no memory. */
static struct kms_p11_module *module_of_locked(void *library, const char *name,
                                               const CK_FUNCTION_LIST *functions)
{
    struct kms_p11_module *module = modules;

    while (module != NULL && module->library != library) {
        module = module->next;
    }
    if (module != NULL) {
        return module;
    }
    module = calloc(1, sizeof(*module));
    if (module == NULL || (module->name = strdup(name)) == NULL) {
        free(module);
        return NULL;
    }
    module->library = library;
    module->functions = functions;
    module->next = modules;
    modules = module;
    return module;
}

/* One more user, who wants @init_args, which are taken if he is the first. */
static enum kms_status use_locked(struct kms_p11_module *module, const char *name, char **init_args,
                                  struct kms_error *err)
{
    if (module->users == 0) {
        free(module->init_args);
        module->init_args = *init_args;
        *init_args = NULL;
    } else if (!kms_text_equal(module->init_args, *init_args)) {
        return kms_error_set(err, KMS_E_UNAVAILABLE,
                             "PKCS#11 module \"%s\" is in use as \"%s\" with other init_args: it "
                             "takes them but once",
                             name, module->name);
    }
    module->users++;
    return KMS_OK;
}

enum kms_status kms_p11_module_get(const char *name, const char *init_args,
                                   struct kms_p11_module **ret_module, struct kms_error *err)
{
    char *args = init_args == NULL ? NULL : strdup(init_args);
    const CK_FUNCTION_LIST *functions = NULL;
    struct kms_p11_module *module = NULL;
    void *library = NULL;
    enum kms_status status = KMS_OK;

    if (init_args != NULL && args == NULL) {
        return kms_error_set(err, KMS_E_NOMEM, "no memory for a PKCS#11 module");
    }
    status = load(name, &args, &library, err);
    if (status == KMS_OK) {
        status = get_functions(name, library, &functions, err);
    }
    if (status != KMS_OK) {
        goto out;
    }
    pthread_mutex_lock(&modules_lock);
    module = module_of_locked(library, name, functions);
    status = module == NULL ? kms_error_set(err, KMS_E_NOMEM, "no memory for a PKCS#11 module")
                            : use_locked(module, name, &args, err);
    pthread_mutex_unlock(&modules_lock);
    if (status == KMS_OK) {
        *ret_module = module;
    }
out:
    free(args);
    return status;
}

/*
 * Two modules may come to one library in the end: p11-kit's proxy, a wrapper as pkcs11-spy. Who
 * found it initialised knows. To finalize it for one would take it from under the calls of the
 * other.
 */
static bool may_be_another_ones_locked(const struct kms_p11_module *module)
{
    for (const struct kms_p11_module *m = modules; m != NULL; m = m->next) {
        if (m != module && m->users > 0 &&
            (atomic_load(&m->was_initialised) || atomic_load(&module->was_initialised))) {
            return true;
        }
    }
    return false;
}

/* The last user has gone. True: C_Finalize is to be called, and nobody starts the module before. */
static bool leave_locked(struct kms_p11_module *module)
{
    bool stays = may_be_another_ones_locked(module);
    bool finalizes = false;

    atomic_store(&module->epoch, 0);
    /* under a call that hangs inside, leaving it initialised is the lesser evil */
    finalizes = module->initialised && !stays && atomic_load(&module->inside) == 0;
    if (finalizes || stays) {
        module->initialised = false;
    }
    module->starting = finalizes;
    return finalizes;
}

void kms_p11_module_put(struct kms_p11_module *module)
{
    bool finalizes = false;

    if (module == NULL) {
        return;
    }
    pthread_mutex_lock(&modules_lock);
    finalizes = --module->users == 0 && leave_locked(module);
    pthread_mutex_unlock(&modules_lock);
    if (finalizes) {
        (void)module->functions->C_Finalize(NULL);
        pthread_mutex_lock(&modules_lock);
        module->starting = false;
        pthread_mutex_unlock(&modules_lock);
    }
}

bool kms_p11_module_is_shared(struct kms_p11_module *module)
{
    bool shared = false;

    pthread_mutex_lock(&modules_lock);
    shared = module->users > 1 || may_be_another_ones_locked(module);
    pthread_mutex_unlock(&modules_lock);
    return shared;
}

const CK_FUNCTION_LIST *kms_p11_module_functions(const struct kms_p11_module *module)
{
    return module->functions;
}

bool kms_p11_module_enter(struct kms_p11_module *module, uint64_t epoch)
{
    /* Counted first, then looked: drain() closes first, then counts. One of the two sees the other.
     */
    atomic_fetch_add(&module->inside, 1);
    if (epoch != 0 && atomic_load(&module->epoch) == epoch) {
        return true;
    }
    atomic_fetch_sub(&module->inside, 1);
    return false;
}

void kms_p11_module_leave(struct kms_p11_module *module)
{
    atomic_fetch_sub(&module->inside, 1);
}

unsigned kms_p11_module_inside(struct kms_p11_module *module)
{
    return atomic_load(&module->inside);
}

/* With the gate closed, true once nobody is inside. Polls: this happens once in a module's death.
 */
static bool drain(struct kms_p11_module *module, uint64_t deadline_ns)
{
    const struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};

    while (atomic_load(&module->inside) != 0) {
        if (kms_deadline_passed(deadline_ns)) {
            return false;
        }
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
    return true;
}

static enum kms_status initialise(struct kms_p11_module *module, struct kms_error *err)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK, .pReserved = module->init_args};
    CK_RV rv = CKR_OK;

    if (module->initialised) {
        /* what it answers does not matter: it may be too sick to say yes */
        (void)module->functions->C_Finalize(NULL);
        module->initialised = false;
    }
    rv = module->functions->C_Initialize(&args);
    if (rv != CKR_OK && rv != CKR_CRYPTOKI_ALREADY_INITIALIZED) {
        (void)kms_ckr_error(err, module->name, "C_Initialize", rv);
        return KMS_E_UNAVAILABLE;
    }
    module->initialised = true;
    atomic_store(&module->was_initialised, rv == CKR_CRYPTOKI_ALREADY_INITIALIZED);
    return KMS_OK;
}

/* Claims the start; false when another has done it since @seen. Waits while another is at it. */
static enum kms_status start_claim(struct kms_p11_module *module, uint64_t seen,
                                   uint64_t deadline_ns, bool *ret_mine)
{
    const struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};

    for (;;) {
        bool busy = false;

        pthread_mutex_lock(&modules_lock);
        busy = module->starting;
        if (!busy) {
            uint64_t epoch = atomic_load(&module->epoch);

            *ret_mine = epoch == 0 || epoch == seen;
            module->starting = *ret_mine;
            if (*ret_mine) {
                atomic_store(&module->epoch, 0);
            }
        }
        pthread_mutex_unlock(&modules_lock);
        if (!busy) {
            return KMS_OK;
        }
        if (kms_deadline_passed(deadline_ns)) {
            return KMS_E_BUSY;
        }
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
}

enum kms_status kms_p11_module_start(struct kms_p11_module *module, uint64_t seen,
                                     uint64_t deadline_ns, uint64_t *ret_epoch,
                                     struct kms_error *err)
{
    bool mine = false;
    enum kms_status status = start_claim(module, seen, deadline_ns, &mine);

    if (status != KMS_OK) {
        return status;
    }
    if (mine) {
        status = drain(module, deadline_ns) ? initialise(module, err) : KMS_E_BUSY;
        pthread_mutex_lock(&modules_lock);
        if (status == KMS_OK) {
            atomic_store(&module->epoch, ++module->last_epoch);
        }
        module->starting = false;
        pthread_mutex_unlock(&modules_lock);
    }
    if (status == KMS_OK) {
        *ret_epoch = atomic_load(&module->epoch);
    }
    return status;
}
