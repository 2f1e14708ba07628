/* Steps of so many rows that they are computed in two parts, whose sums over the ranks are under
 * way while the other part is computed: to the bit what one rank computes in one part. The ranks
 * are threads, whose group makes a begun sum no sooner than it is awaited. */
#include "tests/unit/worker/engine_scene.h"
#include "worker/device.h"

#include <stdatomic.h>

/* The first part ends within the document: half of the rows, up to a multiple of 128. */
enum { DOCUMENT = 2500, PROMPT = 90, ROWS = DOCUMENT + PROMPT, PART_ROWS = 1408 };
enum { HEAD_DIM = 16, Q_HEADS = 8, LAST_LAYER = 1 };

static char one_head[64], four_heads[64];

/* What the step's rows asked for and read in the last layer, on rank 0. */
struct seen {
    int rows, heads;
    uint16_t q[ROWS * Q_HEADS * HEAD_DIM], attended[ROWS * Q_HEADS * HEAD_DIM];
};

static struct seen seen_by_one, seen_by_many;

static enum tca_status see(void *context, const struct forward_view *view)
{
    struct seen *seen = context;
    size_t bytes;

    if (view->layer != LAST_LAYER || seen->rows > 0)
        return TCA_OK;
    for (int i = 0; i < view->item_count; i++)
        seen->rows += view->items[i].rows;
    assert_int_equal(seen->rows, ROWS);
    seen->heads = view->shape->q_heads;
    bytes = (size_t)ROWS * (size_t)seen->heads * HEAD_DIM * sizeof(uint16_t);
    memcpy(seen->q, view->q, bytes);
    memcpy(seen->attended, view->attended, bytes);
    return TCA_OK;
}

/* Rows of the largest FFN on any rank. */
static atomic_int most_rows;
static struct kernel_backend backend;

static enum tca_status counting_swiglu(struct kernel_queue *queue, uint16_t *out,
                                       const void *gate_up, int rows, int cols)
{
    int most = atomic_load(&most_rows);

    while (most < rows && !atomic_compare_exchange_weak(&most_rows, &most, rows))
        ;
    return kernel_backend_cpu()->swiglu(queue, out, gate_up, rows, cols);
}

/* A document and a prompt in one step. */
static void prefill_at_once(struct scene *scene)
{
    if (scene->extra != NULL)
        model_shard_set_probe(scene->run->shard, see, scene->extra);
    open_document(scene, 1, DOCUMENT);
    open_question(scene, 1, 0, PROMPT, 12, &greedy);
    run_until_idle(scene);
    model_shard_set_probe(scene->run->shard, NULL, NULL);
    open_question(scene, 2, 1, 9, 12, &greedy);
    run_until_idle(scene);
    assert_int_equal(scene->document[1].progress, 1);
}

static struct scene large_step(const char *folder, int ranks, struct seen *seen)
{
    return (struct scene){.play = prefill_at_once,
                          .folder = folder,
                          .ranks = ranks,
                          .positions = SCENE_POSITIONS,
                          .chunk = SCENE_POSITIONS,
                          .stripe_unit = 256,
                          .kv_memory_bytes = 64 << 20,
                          .backend = &backend,
                          .extra = seen};
}

static void perform_in_parts(struct scene *scene, int part_rows)
{
    atomic_store(&most_rows, 0);
    assert_int_equal(perform(scene), TCA_OK);
    assert_int_equal(atomic_load(&most_rows), part_rows);
}

static void parts_give_the_bits_of_the_whole(void **state)
{
    struct scene one = large_step(four_heads, 1, &seen_by_one);

    (void)state;
    memset(&seen_by_one, 0, sizeof(seen_by_one));
    perform_in_parts(&one, ROWS);
    assert_int_equal(seen_by_one.heads, Q_HEADS);
    for (int ranks = 2; ranks <= 4; ranks++) {
        struct scene many = large_step(four_heads, ranks, &seen_by_many);

        memset(&seen_by_many, 0, sizeof(seen_by_many));
        perform_in_parts(&many, PART_ROWS);
        assert_true(seen_by_many.heads < Q_HEADS);
        for (ptrdiff_t row = 0; row < ROWS; row++) {
            const ptrdiff_t at = row * Q_HEADS * HEAD_DIM;
            const ptrdiff_t own = row * seen_by_many.heads * HEAD_DIM;
            const size_t bytes = (size_t)seen_by_many.heads * HEAD_DIM * sizeof(uint16_t);

            assert_memory_equal(seen_by_one.q + at, seen_by_many.q + own, bytes);
            assert_memory_equal(seen_by_one.attended + at, seen_by_many.attended + own, bytes);
        }
        for (int key = 1; key <= 2; key++)
            assert_same_answer(&one.question[key], &many.question[key]);
    }
}

/* A striped rank's share of the rows is in one part, in the other, or in both. */
static void striped_ranks_answer_as_one(void **state)
{
    struct scene one = large_step(one_head, 1, NULL);

    (void)state;
    perform_in_parts(&one, ROWS);
    for (int ranks = 2; ranks <= 3; ranks++) {
        struct scene many = large_step(one_head, ranks, NULL);

        perform_in_parts(&many, PART_ROWS);
        for (int key = 1; key <= 2; key++)
            assert_same_answer(&one.question[key], &many.question[key]);
    }
}

/* Products that the device was told of at the start, by all ranks, and those of a chunk's part that
 * were then made: as they had been told, or not. */
enum { CHUNK = 2048, RANKS = 2, PREPARED = RANKS * COMM_SLOTS * 4 };

static struct product {
    const void *out;
    const uint16_t *x;
    int rows;
} prepared[PREPARED];
static atomic_int prepared_count, known, unknown;
static atomic_int
    few_rows; /* those of other products that it was told of, powers of two, together */

static enum tca_status note_product(struct kernel_queue *queue, void *out,
                                    enum kernel_dtype out_dtype, const uint16_t *x,
                                    const struct kernel_weight *weight, const float *bias, int rows)
{
    if (rows == CHUNK / 2) {
        const int index = atomic_fetch_add(&prepared_count, 1);

        assert_true(index < PREPARED);
        prepared[index] = (struct product){.out = out, .x = x, .rows = rows};
    } else {
        atomic_fetch_or(&few_rows, rows);
    }
    return kernel_backend_cpu()->linear(queue, out, out_dtype, x, weight, bias, rows);
}

static enum tca_status look_up_product(struct kernel_queue *queue, void *out,
                                       enum kernel_dtype out_dtype, const uint16_t *x,
                                       const struct kernel_weight *weight, const float *bias,
                                       int rows)
{
    bool is_known = false;

    for (int i = 0; i < PREPARED; i++)
        is_known |= prepared[i].out == out && prepared[i].x == x && prepared[i].rows == rows;
    if (rows == CHUNK / 2)
        atomic_fetch_add(is_known ? &known : &unknown, 1);
    return kernel_backend_cpu()->linear(queue, out, out_dtype, x, weight, bias, rows);
}

static void prefill_a_chunk(struct scene *scene)
{
    open_document(scene, 1, CHUNK);
    run_until_idle(scene);
    open_question(scene, 1, 1, 9, 12, &greedy);
    run_until_idle(scene);
}

static void the_products_of_a_chunks_parts_are_prepared(void **state)
{
    struct kernel_backend preparing = *kernel_backend_cpu();
    struct scene plain = large_step(four_heads, RANKS, NULL), scene;

    (void)state;
    plain.play = prefill_a_chunk;
    plain.chunk = CHUNK;
    scene = plain;
    preparing.linear_prepare = note_product;
    preparing.linear = look_up_product;
    scene.backend = &preparing;
    assert_int_equal(perform(&plain), TCA_OK);
    assert_int_equal(perform(&scene), TCA_OK);
    assert_int_equal(atomic_load(&prepared_count), PREPARED);
    assert_int_equal(atomic_load(&few_rows),
                     2 * LINEAR_SHARED_ROWS_MOST - LINEAR_SHARED_ROWS_LEAST);
    /* Of the last layer a document needs K and V alone: one product of four. */
    assert_int_equal(atomic_load(&known), PREPARED * LAST_LAYER + PREPARED / 4);
    assert_int_equal(atomic_load(&unknown), 0);
    assert_same_answer(&plain.question[1], &scene.question[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_give_the_bits_of_the_whole),
        cmocka_unit_test(striped_ranks_answer_as_one),
        cmocka_unit_test(the_products_of_a_chunks_parts_are_prepared),
    };
    int failed;

    backend = *kernel_backend_cpu();
    backend.swiglu = counting_swiglu;
    tiny_model_make_heads(1, SCENE_POSITIONS, one_head);
    tiny_model_make_heads(4, SCENE_POSITIONS, four_heads);
    failed = cmocka_run_group_tests_name("residual", tests, NULL, NULL);
    tiny_model_remove(one_head);
    tiny_model_remove(four_heads);
    return failed;
}
