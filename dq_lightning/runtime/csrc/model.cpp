#include "model.h"

#include <limits>
#include <stdexcept>

namespace dq {
namespace {

// Reads the parts of one stack, layer by layer.
class Reader {
 public:
  Reader(const Parts& parts, const Model& model, std::string stack)
      : parts_(parts), model_(model), stack_(std::move(stack)) {}

  Stack read(bool is_decoder) {
    Stack stack;
    heads_ = parts_.integer(stack_ + ".heads");
    head_width_ = parts_.integer(stack_ + ".head_width");
    if (heads_ < 1 || head_width_ < 1) throw std::invalid_argument(stack_ + " has no heads");
    const int width = model_.width;
    const int tokens = static_cast<int>(parts_.size(stack_ + ".embedding"));
    stack.embedding = parts_.matrix(stack_ + ".embedding", tokens, width);
    stack.embed_scale = parts_.number(stack_ + ".embed_scale");
    if (parts_.has(stack_ + ".positions")) {
      stack.num_positions = static_cast<int>(parts_.size(stack_ + ".positions"));
      stack.positions = parts_.matrix(stack_ + ".positions", stack.num_positions, width);
      stack.position_offset = parts_.integer(stack_ + ".position_offset");
      if (stack.position_offset < 0 || stack.position_offset >= stack.num_positions)
        throw std::invalid_argument(stack_ + ".position_offset is out of range");
      if (parts_.has(stack_ + ".unplaced_token"))
        stack.unplaced_token = parts_.integer(stack_ + ".unplaced_token");
    }
    if (parts_.has(stack_ + ".relative_bias")) {
      stack.far = parts_.integer(stack_ + ".far");
      stack.relative_bias =
          parts_.numbers(stack_ + ".relative_bias", int64_t{heads_} * (2 * stack.far + 1));
    }
    stack.embedding_norm = norm(stack_ + ".embedding_norm", true);
    stack.final_norm = norm(stack_ + ".final_norm", true);
    const int layers = parts_.integer(stack_ + ".layers");
    for (int number = 0; number < layers; number++)
      stack.layers.push_back(layer(number, is_decoder));
    return stack;
  }

 private:
  Layer layer(int number, bool is_decoder) {
    const std::string name = stack_ + "." + std::to_string(number);
    Layer layer;
    layer.self = attention(name + ".self", false);
    if (is_decoder) layer.cross = attention(name + ".cross", true);
    layer.feed_forward = feed_forward(name + ".feed_forward");
    return layer;
  }

  Attention attention(const std::string& name, bool cross) {
    Attention attention;
    attention.heads = heads_;
    attention.head_width = head_width_;
    attention.scaling = parts_.number(stack_ + ".attention_scale");
    const int width = model_.width, inner = attention.width();
    if (cross) {
      attention.query_key_value = projection(name, {"query"}, width, inner);
      attention.key_value = projection(name, {"key", "value"}, width, inner);
    } else {
      attention.query_key_value = projection(name, {"query", "key", "value"}, width, inner);
    }
    attention.output = projection(name, {"output"}, inner, width);
    attention.query = quantizer(name + ".operands.query");
    attention.key = quantizer(name + ".operands.key");
    attention.value = quantizer(name + ".operands.value");
    attention.probabilities = quantizer(name + ".operands.probabilities");
    if ((attention.query.largest_code == 0) != (attention.key.largest_code == 0))
      throw std::invalid_argument(name + " has only one of query and key in integers");
    attention.norm = norm(name + ".norm", false);
    return attention;
  }

  FeedForward feed_forward(const std::string& name) {
    FeedForward block;
    const int activation = parts_.integer(stack_ + ".activation");
    if (activation < kRelu || activation > kSilu)
      throw std::invalid_argument(stack_ + ".activation is unknown");
    block.activation = static_cast<Activation>(activation);
    block.gated = parts_.integer(stack_ + ".gated") != 0;
    const int inner = parts_.integer(stack_ + ".feed_forward_width");
    const std::vector<std::string> inputs =
        block.gated ? std::vector<std::string>{"input", "gate"} : std::vector<std::string>{"input"};
    block.input = projection(name, inputs, model_.width, inner);
    block.output = projection(name, {"output"}, inner, model_.width);
    block.norm = norm(name + ".norm", false);
    return block;
  }

  Projection projection(const std::string& prefix, const std::vector<std::string>& names,
                        int inputs, int outputs_each) {
    Projection projection;
    projection.inputs = inputs;
    for (const std::string& name : names) {
      const int first = projection.outputs;
      projection.parts.push_back(linear(prefix + "." + name, outputs_each, inputs, first));
      projection.outputs += outputs_each;
    }
    return projection;
  }

 public:
  Linear linear(const std::string& name, int outputs, int inputs, int first) {
    return {parts_.matrix(name, outputs, inputs), quantizer(name + ".quantizer"), first};
  }

 private:
  RowQuantizer quantizer(const std::string& name) {
    if (!parts_.has(name)) return {0, std::numeric_limits<float>::infinity()};
    const float* numbers = parts_.numbers(name, 2);
    if (!(numbers[0] >= 1 && numbers[0] <= 127 && numbers[1] > 0))
      throw std::invalid_argument(name + " is not a quantizer of 2 to 8 bits");
    return {static_cast<int32_t>(numbers[0]), numbers[1]};
  }

  Norm norm(const std::string& name, bool optional) {
    if (optional && !parts_.has(name + ".weight")) return {};
    Norm norm;
    norm.weight = parts_.numbers(name + ".weight", model_.width);
    if (parts_.integer("centred_norms") != 0)
      norm.bias = parts_.numbers(name + ".bias", model_.width);
    norm.epsilon = parts_.number("epsilon");
    return norm;
  }

  const Parts& parts_;
  const Model& model_;
  const std::string stack_;
  int heads_ = 0, head_width_ = 0;
};

}  // namespace

void embed(const Stack& stack, int32_t token, int position, int width, float* room, float* out) {
  dq_dequantize_row(&stack.embedding, token, out);
  for (int column = 0; column < width; column++) out[column] *= stack.embed_scale;
  if (stack.num_positions == 0) return;
  const bool placed = token != stack.unplaced_token;
  dq_dequantize_row(&stack.positions, stack.position_offset + (placed ? position : -1), room);
  for (int column = 0; column < width; column++) out[column] += room[column];
}

Model::Model(const Parts& parts) {
  width = parts.integer("width");
  if (width < 1) throw std::invalid_argument("width is not positive");
  norm_first = parts.integer("norm_first") != 0;
  logits_scale = parts.number("logits_scale");
  encoder = Reader(parts, *this, "encoder").read(false);
  decoder = Reader(parts, *this, "decoder").read(true);
  for (const Stack* stack : {&encoder, &decoder})
    if ((stack->final_norm.weight != nullptr) != norm_first || stack->layers.empty())
      throw std::invalid_argument("a stack has a final norm where norms stand first, and layers");
  vocabulary = static_cast<int>(parts.size("head"));
  if (vocabulary > decoder.embedding.rows)
    throw std::invalid_argument("head has more tokens than the decoder's embedding");
  head = Reader(parts, *this, "decoder").linear("head", vocabulary, width, 0);
}

}  // namespace dq
