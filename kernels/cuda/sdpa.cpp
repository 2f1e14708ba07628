/* cuDNN's attention through its header-only frontend, in the one C++ file of the code base.
 *
 * A KV head is a batch entry and its query heads are that entry's heads, so that every head may
 * have its own number of keys, read from the device (padding mask), and its own place (ragged
 * offsets, which in 64 bits cuDNN wants of all tensors or of none): one plan serves any length and
 * any stride. The library is opened by name, and so are, by the frontend, the few functions of
 * CUDA's run-time library that it calls. */
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include "kernels/cuda/sdpa.h"

extern "C" {
#include "base/log.h"
}

#include <cstring>
#include <cudnn_frontend.h>
#include <exception>
#include <memory>
#include <vector>

namespace fe = cudnn_frontend;

namespace cudnn_frontend
{
void *cudnn_dlhandle; /* the frontend's; set once */
}

enum tensor_id { Q = 1, K, V, OUT, LSE, Q_OFFSETS, KV_OFFSETS, QUERY_COUNTS, KEY_COUNTS };

static const size_t version_least = 91000; /* what the forms were tried with, or later */

/* A form with its graph, which is NULL where cuDNN has no plan. */
struct sdpa_plan {
    sdpa_form form;
    std::shared_ptr<fe::graph::Graph> graph;
};

struct sdpa {
    cudnnHandle_t handle;
    std::vector<sdpa_plan> plans;
    void *workspace;
    int64_t workspace_bytes;
};

static bool is_same(const sdpa_form &a, const sdpa_form &b)
{
    return a.queries == b.queries && a.is_causal == b.is_causal &&
           a.shape.q_heads == b.shape.q_heads && a.shape.kv_heads == b.shape.kv_heads &&
           a.shape.head_dim == b.shape.head_dim && a.shape.scale == b.shape.scale;
}

static std::shared_ptr<fe::graph::Graph> describe(const sdpa_form &form)
{
    using attributes = fe::graph::Tensor_attributes;
    auto graph = std::make_shared<fe::graph::Graph>();
    const int64_t kv_heads = form.shape.kv_heads, q_heads = form.shape.q_heads;
    const int64_t group = q_heads / kv_heads, dim = form.shape.head_dim, queries = form.queries;
    const std::vector<int64_t> q_dims = {kv_heads, group, queries, dim};
    const std::vector<int64_t> q_strides = {group * dim, dim, q_heads * dim, 1};
    const std::vector<int64_t> kv_dims = {kv_heads, 1, SDPA_KEYS_MOST, dim};
    const std::vector<int64_t> kv_strides = {SDPA_KEYS_MOST * dim, SDPA_KEYS_MOST * dim, dim, 1};
    auto list = [&](const char *name, tensor_id id, int64_t count, fe::DataType_t type) {
        return graph->tensor(attributes()
                                 .set_name(name)
                                 .set_uid(id)
                                 .set_dim({count, 1, 1, 1})
                                 .set_stride({1, 1, 1, 1})
                                 .set_data_type(type));
    };

    graph->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    auto q_offsets = list("q offsets", Q_OFFSETS, kv_heads + 1, fe::DataType_t::INT64);
    auto kv_offsets = list("kv offsets", KV_OFFSETS, kv_heads + 1, fe::DataType_t::INT64);
    auto query_counts = list("query counts", QUERY_COUNTS, kv_heads, fe::DataType_t::INT32);
    auto key_counts = list("key counts", KEY_COUNTS, kv_heads, fe::DataType_t::INT32);
    auto q = graph->tensor(attributes()
                               .set_name("q")
                               .set_uid(Q)
                               .set_dim(q_dims)
                               .set_stride(q_strides)
                               .set_ragged_offset(q_offsets));
    auto kv = attributes().set_dim(kv_dims).set_stride(kv_strides).set_ragged_offset(kv_offsets);
    auto k = graph->tensor(attributes(kv).set_name("k").set_uid(K));
    auto v = graph->tensor(attributes(kv).set_name("v").set_uid(V));
    auto options = fe::graph::SDPA_attributes()
                       .set_name("attention")
                       .set_generate_stats(true)
                       .set_attn_scale(form.shape.scale)
                       .set_implementation(fe::AttentionImplementation_t::COMPOSITE)
                       .set_padding_mask(true)
                       .set_seq_len_q(query_counts)
                       .set_seq_len_kv(key_counts);
    if (form.is_causal)
        options.set_diagonal_alignment(fe::DiagonalAlignment_t::BOTTOM_RIGHT)
            .set_diagonal_band_right_bound(0);
    auto results = graph->sdpa(q, k, v, options);
    results[0]
        ->set_output(true)
        .set_uid(OUT)
        .set_dim(q_dims)
        .set_stride(q_strides)
        .set_ragged_offset(q_offsets);
    results[1]
        ->set_output(true)
        .set_uid(LSE)
        .set_data_type(fe::DataType_t::FLOAT)
        .set_dim({kv_heads, group, queries, 1})
        .set_stride({group, 1, q_heads, 1});
    return graph;
}

/* The plan's workspace, at least what all plans so far want: they keep theirs where there is no
 * memory for a larger one. */
static bool grow_workspace(sdpa *sdpa, const fe::graph::Graph &graph)
{
    int64_t bytes = 0;
    void *grown;

    if (graph.get_workspace_size(bytes).is_bad())
        return false;
    if (bytes <= sdpa->workspace_bytes)
        return true;
    if (cudaMalloc(&grown, (size_t)bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    cudaFree(sdpa->workspace); /* waits for work that may still use it */
    sdpa->workspace = grown;
    sdpa->workspace_bytes = bytes;
    return true;
}

static void make_plan(sdpa *sdpa, sdpa_plan &plan)
{
    const sdpa_form &form = plan.form;
    std::string why;

    try {
        auto graph = describe(form);
        auto error = graph->build(sdpa->handle, {fe::HeurMode_t::A});

        if (error.is_bad())
            why = error.get_message();
        else if (!grow_workspace(sdpa, *graph))
            why = "no memory for its workspace";
        else
            plan.graph = graph;
    } catch (const std::exception &error) {
        why = error.what();
    }
    if (plan.graph)
        return;
    why = why.substr(0, why.find('\n')); /* it goes on with the engines' reasons */
    log_warn("attention: cuDNN has no plan for %d %squeries of %d/%d heads of %d (%s): own "
             "kernels serve",
             form.queries, form.is_causal ? "causal " : "", form.shape.q_heads, form.shape.kv_heads,
             form.shape.head_dim, why.c_str());
}

static sdpa_plan *find_plan(sdpa *sdpa, const sdpa_form *form)
{
    for (auto &plan : sdpa->plans)
        if (is_same(plan.form, *form))
            return &plan;
    return NULL;
}

/* NULL, or why the library cannot serve. */
static const char *open_library(cudaStream_t stream, cudnnHandle_t *handle_out)
{
    using set_stream_fn = cudnnStatus_t (*)(cudnnHandle_t, cudaStream_t);

    if (fe::cudnn_dlhandle == NULL)
        fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_GLOBAL);
    if (fe::cudnn_dlhandle == NULL)
        return "libcudnn.so.9 is not found";
    if (fe::detail::get_backend_version() < version_least)
        return "it is older than 9.10";
    auto set_stream = (set_stream_fn)dlsym(fe::cudnn_dlhandle, "cudnnSetStream");
    if (set_stream == NULL || fe::detail::create_handle(handle_out) != CUDNN_STATUS_SUCCESS)
        return "it cannot be initialised";
    return set_stream(*handle_out, stream) == CUDNN_STATUS_SUCCESS ? NULL : "it takes no stream";
}

enum tca_status sdpa_create(cudaStream_t stream, struct sdpa **sdpa_out)
{
    cudnnHandle_t handle = NULL;

    *sdpa_out = NULL;
    try {
        const char *why = open_library(stream, &handle);

        if (why != NULL) {
            log_warn("attention: without cuDNN, own kernels serve: %s", why);
            if (handle != NULL)
                fe::detail::destroy_handle(handle);
            return TCA_OK;
        }
        *sdpa_out = new sdpa{handle, {}, NULL, 0};
        log_info("attention: cuDNN %zu", fe::detail::get_backend_version());
        return TCA_OK;
    } catch (const std::bad_alloc &) {
        return TCA_ERR_NO_MEMORY;
    } catch (const std::exception &error) {
        log_warn("attention: without cuDNN, own kernels serve: %s", error.what());
        return TCA_OK;
    }
}

void sdpa_destroy(struct sdpa *sdpa)
{
    if (sdpa == NULL)
        return;
    sdpa->plans.clear();
    cudaFree(sdpa->workspace);
    fe::detail::destroy_handle(sdpa->handle);
    delete sdpa;
}

bool sdpa_prepare(struct sdpa *sdpa, const struct sdpa_form *form)
{
    if (sdpa == NULL)
        return false;
    sdpa_plan *plan = find_plan(sdpa, form);
    if (plan == NULL) {
        try {
            sdpa->plans.push_back({*form, nullptr});
        } catch (const std::exception &) {
            return false;
        }
        plan = &sdpa->plans.back();
        make_plan(sdpa, *plan);
    }
    return plan->graph != nullptr;
}

enum tca_status sdpa_run(struct sdpa *sdpa, const struct sdpa_form *form,
                         const struct sdpa_tensors *tensors)
{
    sdpa_plan *plan = find_plan(sdpa, form);

    if (plan == NULL || !plan->graph)
        return TCA_ERR_UNSUPPORTED;
    try {
        std::unordered_map<int64_t, void *> pointers = {
            {Q, const_cast<uint16_t *>(tensors->q)},
            {K, const_cast<uint16_t *>(tensors->k)},
            {V, const_cast<uint16_t *>(tensors->v)},
            {OUT, tensors->out},
            {LSE, tensors->lse},
            {Q_OFFSETS, const_cast<int64_t *>(tensors->q_offsets)},
            {KV_OFFSETS, const_cast<int64_t *>(tensors->kv_offsets)},
            {QUERY_COUNTS, const_cast<int32_t *>(tensors->query_counts)},
            {KEY_COUNTS, const_cast<int32_t *>(tensors->key_counts)}};
        auto error = plan->graph->execute(sdpa->handle, pointers, sdpa->workspace);

        if (error.is_good())
            return TCA_OK;
        log_error("cuDNN attention: %s", error.get_message().c_str());
    } catch (const std::exception &error) {
        log_error("cuDNN attention: %s", error.what());
    }
    return TCA_ERR_DEVICE;
}
