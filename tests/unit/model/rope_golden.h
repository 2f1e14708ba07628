/* Written by rope_golden.py: do not edit. */
static const struct rope_golden {
    const char *name, *config;
    int half;
    float magnitude, inv_freq[64];
} rope_goldens[] = {
    {"default",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 8192, "
     "\"rope_theta\": 100000.0}",
     32,
     1.0F,
     {
         1.00000000e+00F, 6.97830558e-01F, 4.86967534e-01F, 3.39820832e-01F, 2.37137362e-01F,
         1.65481701e-01F, 1.15478203e-01F, 8.05842131e-02F, 5.62341288e-02F, 3.92418988e-02F,
         2.73841955e-02F, 1.91095304e-02F, 1.33352149e-02F, 9.30572022e-03F, 6.49381662e-03F,
         4.53158375e-03F, 3.16227786e-03F, 2.20673415e-03F, 1.53992651e-03F, 1.07460783e-03F,
         7.49894185e-04F, 5.23299095e-04F, 3.65174114e-04F, 2.54829676e-04F, 1.77827940e-04F,
         1.24093771e-04F, 8.65964321e-05F, 6.04296365e-05F, 4.21696532e-05F, 2.94272722e-05F,
         2.05352499e-05F, 1.43301268e-05F,
     }},
    {"default theta",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 8192}",
     32,
     1.0F,
     {
         1.00000000e+00F, 7.49894202e-01F, 5.62341332e-01F, 4.21696514e-01F, 3.16227764e-01F,
         2.37137362e-01F, 1.77827939e-01F, 1.33352146e-01F, 1.00000001e-01F, 7.49894157e-02F,
         5.62341288e-02F, 4.21696492e-02F, 3.16227786e-02F, 2.37137359e-02F, 1.77827943e-02F,
         1.33352149e-02F, 9.99999978e-03F, 7.49894232e-03F, 5.62341325e-03F, 4.21696482e-03F,
         3.16227786e-03F, 2.37137382e-03F, 1.77827943e-03F, 1.33352145e-03F, 1.00000005e-03F,
         7.49894185e-04F, 5.62341302e-04F, 4.21696488e-04F, 3.16227786e-04F, 2.37137385e-04F,
         1.77827940e-04F, 1.33352150e-04F,
     }},
    {"default new",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 8192, "
     "\"rope_parameters\": {\"rope_theta\": 500000.0, \"rope_type\": \"default\"}}",
     32,
     1.0F,
     {
         1.00000000e+00F, 6.63601279e-01F, 4.40366626e-01F, 2.92227834e-01F, 1.93922758e-01F,
         1.28687382e-01F, 8.53971019e-02F, 5.66696189e-02F, 3.76060307e-02F, 2.49554086e-02F,
         1.65604409e-02F, 1.09895291e-02F, 7.29266508e-03F, 4.83942125e-03F, 3.21144611e-03F,
         2.13111960e-03F, 1.41421345e-03F, 9.38473851e-04F, 6.22772437e-04F, 4.13272559e-04F,
         2.74248188e-04F, 1.81991432e-04F, 1.20769742e-04F, 8.01429487e-05F, 5.31829573e-05F,
         3.52922762e-05F, 2.34199979e-05F, 1.55415401e-05F, 1.03133852e-05F, 6.84397537e-06F,
         4.54167048e-06F, 3.01385808e-06F,
     }},
    {"linear old",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 8192, "
     "\"rope_theta\": 10000.0, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.5}}",
     32,
     1.0F,
     {
         4.00000006e-01F, 2.99957693e-01F, 2.24936530e-01F, 1.68678612e-01F, 1.26491100e-01F,
         9.48549435e-02F, 7.11311772e-02F, 5.33408597e-02F, 3.99999991e-02F, 2.99957655e-02F,
         2.24936511e-02F, 1.68678593e-02F, 1.26491114e-02F, 9.48549435e-03F, 7.11311772e-03F,
         5.33408578e-03F, 3.99999972e-03F, 2.99957697e-03F, 2.24936521e-03F, 1.68678595e-03F,
         1.26491114e-03F, 9.48549539e-04F, 7.11311761e-04F, 5.33408602e-04F, 4.00000019e-04F,
         2.99957668e-04F, 2.24936521e-04F, 1.68678598e-04F, 1.26491112e-04F, 9.48549568e-05F,
         7.11311732e-05F, 5.33408602e-05F,
     }},
    {"linear new",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 8192, "
     "\"rope_parameters\": {\"rope_theta\": 10000.0, \"rope_type\": \"linear\", \"factor\": 2.5}}",
     32,
     1.0F,
     {
         4.00000006e-01F, 2.99957693e-01F, 2.24936530e-01F, 1.68678612e-01F, 1.26491100e-01F,
         9.48549435e-02F, 7.11311772e-02F, 5.33408597e-02F, 3.99999991e-02F, 2.99957655e-02F,
         2.24936511e-02F, 1.68678593e-02F, 1.26491114e-02F, 9.48549435e-03F, 7.11311772e-03F,
         5.33408578e-03F, 3.99999972e-03F, 2.99957697e-03F, 2.24936521e-03F, 1.68678595e-03F,
         1.26491114e-03F, 9.48549539e-04F, 7.11311761e-04F, 5.33408602e-04F, 4.00000019e-04F,
         2.99957668e-04F, 2.24936521e-04F, 1.68678598e-04F, 1.26491112e-04F, 9.48549568e-05F,
         7.11311732e-05F, 5.33408602e-05F,
     }},
    {"llama3 old",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 131072, "
     "\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
     "\"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": "
     "8192}}",
     32,
     1.0F,
     {
         1.00000000e+00F, 6.63601279e-01F, 4.40366626e-01F, 2.92227834e-01F, 1.93922758e-01F,
         1.28687382e-01F, 8.53971019e-02F, 5.66696189e-02F, 3.76060307e-02F, 2.49554086e-02F,
         1.65604409e-02F, 1.09895291e-02F, 7.29266508e-03F, 4.83942125e-03F, 3.21144611e-03F,
         1.37189368e-03F, 5.24846022e-04F, 1.78507791e-04F, 7.78465546e-05F, 5.16590699e-05F,
         3.42810235e-05F, 2.27489290e-05F, 1.50962178e-05F, 1.00178686e-05F, 6.64786967e-06F,
         4.41153452e-06F, 2.92749974e-06F, 1.94269251e-06F, 1.28917316e-06F, 8.55496921e-07F,
         5.67708810e-07F, 3.76732260e-07F,
     }},
    {"llama3 new, head_dim 128",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 131072, "
     "\"head_dim\": 128, \"rope_parameters\": {\"rope_theta\": 500000.0, \"rope_type\": "
     "\"llama3\", \"factor\": 32.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
     "\"original_max_position_embeddings\": 8192}}",
     64,
     1.0F,
     {
         1.00000000e+00F, 8.14617217e-01F, 6.63601279e-01F, 5.40580988e-01F, 4.40366626e-01F,
         3.58730227e-01F, 2.92227834e-01F, 2.38053814e-01F, 1.93922758e-01F, 1.57972813e-01F,
         1.28687382e-01F, 1.04830950e-01F, 8.53971019e-02F, 6.95659518e-02F, 5.66696189e-02F,
         4.61640507e-02F, 3.76060307e-02F, 3.06345206e-02F, 2.49554086e-02F, 2.03291047e-02F,
         1.65604409e-02F, 1.34904198e-02F, 1.09895291e-02F, 8.95225909e-03F, 7.29266508e-03F,
         5.94073068e-03F, 4.83942125e-03F, 3.94227589e-03F, 3.21144611e-03F, 2.11840682e-03F,
         1.29054801e-03F, 7.62541255e-04F, 4.29556705e-04F, 2.22763410e-04F, 9.70828623e-05F,
         2.38905304e-05F, 1.94616387e-05F, 1.58537860e-05F, 1.29147675e-05F, 1.05205918e-05F,
         8.57025589e-06F, 6.98147733e-06F, 5.68723226e-06F, 4.63291735e-06F, 3.77405445e-06F,
         3.07440973e-06F, 2.50446715e-06F, 2.04018193e-06F, 1.66196742e-06F, 1.35386733e-06F,
         1.10288363e-06F, 8.98427970e-07F, 7.31874934e-07F, 5.96197935e-07F, 4.85673127e-07F,
         3.95637699e-07F, 3.22293289e-07F, 2.62545655e-07F, 2.13874230e-07F, 1.74225633e-07F,
         1.41927202e-07F, 1.15616345e-07F, 9.41830649e-08F, 7.67231469e-08F,
     }},
    {"yarn old",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 32768, "
     "\"rope_theta\": 1000000.0, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, "
     "\"original_max_position_embeddings\": 32768}}",
     32,
     1.138629436111989F,
     {
         1.00000000e+00F, 6.49381638e-01F, 4.21696514e-01F, 2.73841977e-01F, 1.77827939e-01F,
         1.15478203e-01F, 7.49894157e-02F, 4.86967526e-02F, 3.16227786e-02F, 2.05352511e-02F,
         1.33352149e-02F, 8.65964312e-03F, 5.15479548e-03F, 3.04311770e-03F, 1.77853031e-03F,
         1.02661771e-03F, 5.83333371e-04F, 3.24690831e-04F, 1.75706868e-04F, 9.12806499e-05F,
         4.44569851e-05F, 2.88695483e-05F, 1.87473561e-05F, 1.21741887e-05F, 7.90569356e-06F,
         5.13381246e-06F, 3.33380353e-06F, 2.16491094e-06F, 1.40585337e-06F, 9.12935320e-07F,
         5.92843435e-07F, 3.84981632e-07F,
     }},
    {"yarn new",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 131072, "
     "\"rope_parameters\": {\"rope_theta\": 1000000.0, \"rope_type\": \"yarn\", \"factor\": 4.0, "
     "\"original_max_position_embeddings\": 32768, \"beta_fast\": 16, \"beta_slow\": 2}}",
     32,
     1.138629436111989F,
     {
         1.00000000e+00F, 6.49381638e-01F, 4.21696514e-01F, 2.73841977e-01F, 1.77827939e-01F,
         1.15478203e-01F, 7.49894157e-02F, 4.86967526e-02F, 3.16227786e-02F, 2.05352511e-02F,
         1.33352149e-02F, 8.65964312e-03F, 5.62341325e-03F, 3.65174143e-03F, 2.07495200e-03F,
         1.15494477e-03F, 6.25000044e-04F, 3.24690831e-04F, 1.58136187e-04F, 6.84604893e-05F,
         4.44569851e-05F, 2.88695483e-05F, 1.87473561e-05F, 1.21741887e-05F, 7.90569356e-06F,
         5.13381246e-06F, 3.33380353e-06F, 2.16491094e-06F, 1.40585337e-06F, 9.12935320e-07F,
         5.92843435e-07F, 3.84981632e-07F,
     }},
    {"yarn without original",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 8192, "
     "\"rope_theta\": 10000.0, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 8.0}}",
     32,
     1.2079441541679836F,
     {
         1.00000000e+00F, 7.49894202e-01F, 5.62341332e-01F, 4.21696514e-01F, 3.16227764e-01F,
         2.37137362e-01F, 1.77827939e-01F, 1.33352146e-01F, 1.00000001e-01F, 7.49894157e-02F,
         5.62341288e-02F, 4.21696492e-02F, 3.16227786e-02F, 2.21176203e-02F, 1.53889572e-02F,
         1.06425276e-02F, 7.30769243e-03F, 4.97525977e-03F, 3.35241947e-03F, 2.23012548e-03F,
         1.45951274e-03F, 9.34868527e-04F, 5.81360538e-04F, 3.46202694e-04F, 1.92307692e-04F,
         9.37367731e-05F, 7.02926627e-05F, 5.27120610e-05F, 3.95284733e-05F, 2.96421731e-05F,
         2.22284925e-05F, 1.66690188e-05F,
     }},
    {"yarn attention factor",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 8192, "
     "\"rope_theta\": 10000.0, \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 8.0, "
     "\"original_max_position_embeddings\": 4096, \"attention_factor\": 1.25}}",
     32,
     1.25F,
     {
         1.00000000e+00F, 7.49894202e-01F, 5.62341332e-01F, 4.21696514e-01F, 3.16227764e-01F,
         2.37137362e-01F, 1.77827939e-01F, 1.33352146e-01F, 1.00000001e-01F, 7.49894157e-02F,
         5.62341288e-02F, 3.93313095e-02F, 2.73658652e-02F, 1.89253855e-02F, 1.29951192e-02F,
         8.84740148e-03F, 5.96153876e-03F, 3.96578666e-03F, 2.59542139e-03F, 1.66245725e-03F,
         1.03382161e-03F, 6.15645084e-04F, 3.41976818e-04F, 1.66690181e-04F, 1.25000006e-04F,
         9.37367731e-05F, 7.02926627e-05F, 5.27120610e-05F, 3.95284733e-05F, 2.96421731e-05F,
         2.22284925e-05F, 1.66690188e-05F,
     }},
    {"yarn mscale",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 8192, "
     "\"rope_theta\": 10000.0, \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 40.0, "
     "\"original_max_position_embeddings\": 4096, \"mscale\": 0.707, \"mscale_all_dim\": 1.0}}",
     32,
     0.9210423553163399F,
     {
         1.00000000e+00F, 7.49894202e-01F, 5.62341332e-01F, 4.21696514e-01F, 3.16227764e-01F,
         2.37137362e-01F, 1.77827939e-01F, 1.33352146e-01F, 1.00000001e-01F, 7.49894157e-02F,
         5.62341288e-02F, 3.90069261e-02F, 2.68793609e-02F, 1.83781441e-02F, 1.24479560e-02F,
         8.33450910e-03F, 5.50000044e-03F, 3.56199732e-03F, 2.24936521e-03F, 1.37051346e-03F,
         7.90569407e-04F, 4.14990413e-04F, 1.77827940e-04F, 3.33380340e-05F, 2.49999994e-05F,
         1.87473543e-05F, 1.40585325e-05F, 1.05424124e-05F, 7.90569447e-06F, 5.92843435e-06F,
         4.44569832e-06F, 3.33380353e-06F,
     }},
    {"yarn fractions",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 256, "
     "\"intermediate_size\": 512, \"num_hidden_layers\": 1, \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 8192, "
     "\"rope_theta\": 150000.0, \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 32.0, "
     "\"original_max_position_embeddings\": 4096, \"truncate\": false}}",
     32,
     1.3465735902799727F,
     {
         1.00000000e+00F, 6.89044297e-01F, 4.74782050e-01F, 3.27145875e-01F, 2.25418001e-01F,
         1.55322984e-01F, 1.07024424e-01F, 7.37445652e-02F, 5.08132726e-02F, 3.17056961e-02F,
         1.93349998e-02F, 1.15920492e-02F, 6.79495931e-03F, 3.86035908e-03F, 2.09379266e-03F,
         1.05260219e-03F, 4.56483918e-04F, 1.29318694e-04F, 3.83088118e-05F, 2.63964685e-05F,
         1.81883370e-05F, 1.25325696e-05F, 8.63549576e-06F, 5.95023948e-06F, 4.09997847e-06F,
         2.82506676e-06F, 1.94659629e-06F, 1.34129095e-06F, 9.24208962e-07F, 6.36820914e-07F,
         4.38797855e-07F, 3.02351140e-07F,
     }},
};
