// One token through layers that are one program: a call in place of hundreds.
//
// A program is the list of instructions of a layer (`ops.one_token` writes it).
// Values live in slots of one memory, layer after layer; what differs between
// layers are scalars, vectors and matrices.  Everything but products is done by
// one thread: a vector of a few thousand numbers takes less time than a second
// thread needs to wake up.  Products that are ready together are shared out
// together.
//
// Arguments: the externals int32[1, width], the states int32[layers, width],
// the scalars int32[layers, n], the vectors int32[layers, width], the matrices
// uint8[layers, out, bytes] (`numerics.packed`), of what is counted the tables
// int8[layers, columns, width] and their sums int32[layers, columns].
// Results: the kept values int32[layers, 1, width], the new states
// int32[layers, width], the counts int32[layers, 1, n].

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "alu.h"
#include "few.h"
#include "gemm.h"
#include "memory.h"
#include "share.h"
#include "tally.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// One line of code.  An operand is 4 times an index, plus where it is (kOne is
// a slot of one number that meets a whole vector); a number is the index of a
// scalar, or -1 minus that of a literal.  `c` is also the inputs of a product.
enum Where : int64_t { kSlot, kOne, kVector, kScalar };
struct Step {
  int64_t op, width, out, a, b, c, p[3], extra;
};
static_assert(sizeof(Step) == 10 * sizeof(int64_t), "as it is written");

// Behind the instructions of `kAlu`.
enum Special { kDense, kPrev, kKeep, kBind, kCount, kSpecials };
const char* const kSpecialNames[] = {"dense", "prev", "keep", "bind", "count"};

struct Vector {
  const int32_t* data;
  int64_t width;
};

struct Matrix {
  const uint8_t* data;
  int64_t outputs, bytes;
};

struct Program {
  const Step* steps;
  int64_t count, layers, scalars;
  const int32_t* scalar;
  const int64_t* literals;
  const int32_t* nodes;
  std::vector<Vector> states, vectors;
  std::vector<Matrix> matrices;
  std::vector<jaxnmc::Counted> counted;
  std::vector<int64_t> count_at;
  std::vector<int32_t*> kept, bound;
  int32_t* counts;
  int64_t counts_width, widest;
  ffi::ThreadPool* pool;
  int alu;
};

// A matrix times the digits of its input.
struct Product {
  const Matrix* matrix;
  const uint8_t* weights;
  jaxnmc::Few few;
  const int32_t* x;
  int64_t inputs;
  int32_t* out;
};

struct Part {
  const Product* product;
  int64_t first, last;
};

// Memory of a thread, kept from call to call: the system clears what it hands
// out anew, which takes longer than a small layer.
struct Scratch {
  std::vector<uint8_t> slots, digits;
  std::vector<int32_t> filled[3], sums;
  std::vector<int8_t> sent, ones;
  std::vector<Product> products;
  std::vector<Part> parts;
};

class Interpreter {
 public:
  Interpreter(const Program& program, int32_t* slots, Scratch* scratch)
      : program_(program),
        slots_(slots),
        scratch_(*scratch),
        few_(jaxnmc::ChooseFew(program.alu == 2   ? 2
                               : program.alu == 1 ? 1
                                                  : 0)),
        split_(jaxnmc::ChooseSplit(program.alu)) {
    const size_t widest = program.widest;
    if (scratch_.ones.size() >= widest) return;
    for (auto& one : scratch_.filled) one.resize(widest);
    scratch_.sent.resize(widest);
    scratch_.ones.assign(widest, 1);
  }

  void Layer(int64_t layer) {
    layer_ = layer;
    for (int64_t i = 0; i < program_.count;) {
      const Step& step = program_.steps[i];
      const int64_t special = step.op - jaxnmc::kAluSize;
      if (special < 0) {
        Compute(step);
        ++i;
      } else if (special == kDense) {
        // How many products are ready together.
        const int64_t together = Number(step.p[1]);
        Products(program_.steps + i, together);
        i += together;
      } else {
        Move(step, special);
        ++i;
      }
    }
  }

 private:
  int32_t Number(int64_t p) const {
    return p < 0 ? static_cast<int32_t>(program_.literals[-1 - p])
                 : program_.scalar[layer_ * program_.scalars + p];
  }

  // A whole vector of n numbers; what is one number is filled into `room`.
  const int32_t* Read(int64_t operand, int64_t n, std::vector<int32_t>* room) {
    const int64_t i = operand >> 2;
    int32_t one;
    switch (operand & 3) {
      case kSlot: return slots_ + i;
      case kVector: {
        const Vector& v = program_.vectors[i];
        return v.data + layer_ * v.width;
      }
      case kOne: one = slots_[i]; break;
      default: one = Number(i);
    }
    std::fill_n(room->data(), n, one);
    return room->data();
  }

  void Compute(const Step& step) {
    const jaxnmc::Instruction& op = jaxnmc::kAlu[step.op];
    jaxnmc::Operands o = {step.width, nullptr, nullptr, nullptr,
                          slots_ + step.out,
                          {Number(step.p[0]), Number(step.p[1]),
                           Number(step.p[2])},
                          program_.nodes + step.extra};
    o.a = Read(step.a, o.n, &scratch_.filled[0]);
    if (op.operands > 1) o.b = Read(step.b, o.n, &scratch_.filled[1]);
    if (op.operands > 2) o.c = Read(step.c, o.n, &scratch_.filled[2]);
    op.run[program_.alu](o);
  }

  void Move(const Step& step, int64_t special) {
    const int64_t n = step.width;
    const size_t size = n * sizeof(int32_t);
    if (special == kPrev) {
      std::memcpy(slots_ + step.out,
                  program_.states[step.extra].data + layer_ * n, size);
      return;
    }
    const int32_t* a = Read(step.a, n, &scratch_.filled[0]);
    if (special == kKeep) {
      std::memcpy(program_.kept[step.extra] + layer_ * n, a, size);
    } else if (special == kBind) {
      std::memcpy(program_.bound[step.extra] + layer_ * n, a, size);
    } else {
      jaxnmc::Counted counted = program_.counted[step.extra];
      counted.table += layer_ * counted.width * counted.columns;
      counted.whole += layer_ * counted.columns;
      jaxnmc::CountRow(counted, a, scratch_.sent.data(), scratch_.ones.data(),
                       program_.counts + layer_ * program_.counts_width +
                           program_.count_at[step.extra]);
    }
  }

  void Products(const Step* steps, int64_t count) {
    scratch_.products.clear();
    scratch_.sums.resize(count);
    int64_t room = 0, work = 0;
    auto padded = [](int64_t inputs) { return (inputs + 255) / 256 * 256; };
    for (int64_t i = 0; i < count; ++i) room += 2 * padded(steps[i].c);
    int8_t* digits = jaxnmc::Aligned<int8_t>(&scratch_.digits, room);
    for (int64_t i = 0; i < count; ++i) {
      const Step& step = steps[i];
      const Matrix& m = program_.matrices[step.extra];
      Product p = {&m, m.data + layer_ * m.outputs * m.bytes, {},
                   Read(step.a, step.c, &scratch_.filled[0]), step.c,
                   slots_ + step.out};
      const int planes = Number(step.p[0]);
      const int64_t wide = padded(p.inputs);
      work += m.outputs * wide;
      for (const Product& other : scratch_.products) {
        if (other.x == p.x && other.few.planes == planes) p.few = other.few;
      }
      if (few_ && !p.few.digits) {
        int8_t* low = digits + (planes - 1) * wide;
        split_(p.inputs, p.x, planes == 2 ? digits : nullptr, low,
               &scratch_.sums[i]);
        for (int8_t* plane = digits; plane <= low; plane += wide) {
          std::fill(plane + p.inputs, plane + wide, 0);
        }
        p.few = {digits, &scratch_.sums[i], wide, 1, planes};
        digits += planes * wide;
      }
      if (!few_) {
        jaxnmc::Run(jaxnmc::Choose(0), program_.pool, p.x, 1, p.inputs,
                    p.weights, m.outputs, m.bytes, planes, p.out);
      }
      scratch_.products.push_back(p);
    }
    if (few_) Share(work);
  }

  // All outputs of `scratch_.products`, by all threads.
  void Share(int64_t work) {
    auto run = [this](const Product& p, int64_t first, int64_t last) {
      few_->run(p.few, p.weights, p.matrix->bytes, first, last, p.out,
                p.matrix->outputs);
    };
    const int64_t threads = program_.pool->num_threads();
    if (threads < 2 || work < jaxnmc::kFewAlone) {
      for (const Product& p : scratch_.products) run(p, 0, p.matrix->outputs);
      return;
    }
    // More parts than threads, so that a slow one does not hold up the rest.
    const int64_t each = (work + 2 * threads - 1) / (2 * threads);
    scratch_.parts.clear();
    for (const Product& p : scratch_.products) {
      const int64_t outputs = p.matrix->outputs;
      const int64_t size = outputs * ((p.inputs + 255) / 256 * 256);
      const int64_t n = std::max<int64_t>(1, (size + each / 2) / each);
      const int64_t step = ((outputs + n - 1) / n + 3) / 4 * 4;
      for (int64_t a = 0; a < outputs; a += step) {
        scratch_.parts.push_back({&p, a, std::min(a + step, outputs)});
      }
    }
    jaxnmc::Share(program_.pool, scratch_.parts.size(), [&](int64_t i) {
      const Part& part = scratch_.parts[i];
      run(*part.product, part.first, part.last);
    });
  }

  const Program& program_;
  int32_t* slots_;
  Scratch& scratch_;
  const jaxnmc::FewPath* few_;
  jaxnmc::SplitFn split_;
  int64_t layer_ = 0;
};

ffi::Error Wrong(const char* what) { return ffi::Error::InvalidArgument(what); }

// How long everything is that steps name by its index.
struct Lengths {
  int64_t slots, literals, nodes, counted;
  std::vector<int64_t> kept, bound;  // numbers of a layer
};

// What a step asks for and is not there, or null.
const char* Missing(const Program& program, const Lengths& is, const Step& s) {
  if (s.op < 0 || s.op >= jaxnmc::kAluSize + kSpecials) {
    return "no such instruction";
  }
  const int64_t special = s.op - jaxnmc::kAluSize;
  auto within = [](int64_t i, size_t n) {
    return i >= 0 && i < static_cast<int64_t>(n);
  };
  auto slots = [&](int64_t i, int64_t n) {
    return i >= 0 && n >= 0 && i + n <= is.slots;
  };
  for (const int64_t p : s.p) {
    if (!(p < 0 ? within(-1 - p, is.literals) : within(p, program.scalars))) {
      return "no such number";
    }
  }
  const int operands = special < 0 ? jaxnmc::kAlu[s.op].operands
                       : special == kPrev ? 0
                                          : 1;
  const jaxnmc::Form form =
      special < 0 ? jaxnmc::kAlu[s.op].form : jaxnmc::Form::kEach;
  const int64_t read = special == kDense ? s.c : s.width;
  const int64_t words[] = {s.a, s.b, s.c};
  for (int k = 0; k < operands; ++k) {
    const int64_t i = words[k] >> 2;
    switch (words[k] & 3) {
      case kSlot:
        if (!slots(i, form == jaxnmc::Form::kSpread ? 1 : read)) {
          return "no such slot";
        }
        break;
      case kOne:
        if (!slots(i, 1)) return "no such slot";
        break;
      case kVector:
        if (!within(i, program.vectors.size()) ||
            program.vectors[i].width < read) {
          return "no such vector";
        }
        break;
      default:
        if (!within(i, program.scalars)) return "no such number";
    }
  }
  if ((special < 0 || special == kDense || special == kPrev) &&
      !slots(s.out, form == jaxnmc::Form::kReduce ? 1 : s.width)) {
    return "no such slot";
  }
  const int64_t i = s.extra;
  switch (special) {
    case kDense: {
      if (!within(i, program.matrices.size())) return "no such matrix";
      const Matrix& m = program.matrices[i];
      const bool fits = m.outputs == s.width && m.bytes * 4 >= s.c;
      return fits ? nullptr : "a matrix has another shape";
    }
    case kPrev:
      return within(i, program.states.size()) &&
                     program.states[i].width == s.width
                 ? nullptr
                 : "no such state";
    case kKeep:
      return within(i, is.kept.size()) && is.kept[i] == s.width
                 ? nullptr
                 : "no such kept value";
    case kBind:
      return within(i, is.bound.size()) && is.bound[i] == s.width
                 ? nullptr
                 : "no such state";
    case kCount: return within(i, is.counted) ? nullptr : "no such count";
    default: return within(i, is.nodes) ? nullptr : "no such table";
  }
}

using Ints = ffi::Span<const int64_t>;

// `sizes`: slots of memory, externals, states, vectors, matrices, values that
// are counted, values that are kept.  `starts`: slots of the externals; `chain`:
// slot to, slot from and width of what the next layer reads.
ffi::Error Run(ffi::ThreadPool pool, ffi::RemainingArgs args,
               ffi::RemainingRets rets, Ints code, Ints literals,
               ffi::Span<const int32_t> nodes, Ints sizes, Ints starts,
               Ints chain, Ints pieces, Ints edges, Ints columns,
               int64_t path) {
  if (sizes.size() != 7 || code.size() % 10 || chain.size() % 3 ||
      pieces.size() != static_cast<size_t>(sizes[5]) ||
      columns.size() != pieces.size() ||
      starts.size() != static_cast<size_t>(sizes[1])) {
    return Wrong("a program's lists do not fit one another");
  }
  Program program;
  program.steps = reinterpret_cast<const Step*>(code.begin());
  program.count = code.size() / 10;
  program.literals = literals.begin();
  program.nodes = nodes.begin();
  program.pool = &pool;
  program.alu = jaxnmc::ChooseAlu(path);
  size_t at = 0;
  static thread_local Scratch scratch;
  int32_t* slots = jaxnmc::Aligned<int32_t>(&scratch.slots, sizes[0]);

  for (int64_t i = 0; i < sizes[1]; ++i) {
    auto x = args.get<ffi::Buffer<ffi::S32>>(at++);
    if (!x.has_value()) return Wrong("externals are int32");
    const int64_t n = x->element_count();
    if (starts[i] < 0 || starts[i] + n > sizes[0]) return Wrong("no such slot");
    std::memcpy(slots + starts[i], x->typed_data(), n * sizeof(int32_t));
  }
  auto vectors = [&](int64_t count, std::vector<Vector>* to) {
    for (int64_t i = 0; i < count; ++i) {
      auto x = args.get<ffi::Buffer<ffi::S32>>(at++);
      if (!x.has_value() || x->dimensions().size() != 2) return false;
      to->push_back({x->typed_data(), x->dimensions().back()});
    }
    return true;
  };
  if (!vectors(sizes[2], &program.states)) return Wrong("states are int32");
  auto scalars = args.get<ffi::Buffer<ffi::S32>>(at++);
  if (!scalars.has_value() || scalars->dimensions().size() != 2) {
    return Wrong("scalars are int32[layers, n]");
  }
  program.layers = scalars->dimensions()[0];
  program.scalars = scalars->dimensions()[1];
  program.scalar = scalars->typed_data();
  if (!vectors(sizes[3], &program.vectors)) return Wrong("vectors are int32");
  for (int64_t i = 0; i < sizes[4]; ++i) {
    auto x = args.get<ffi::Buffer<ffi::U8>>(at++);
    if (!x.has_value() || x->dimensions().size() != 3 ||
        x->dimensions()[0] != program.layers || x->dimensions()[2] % 64) {
      return Wrong("matrices are uint8[layers, out, bytes]");
    }
    program.matrices.push_back(
        {x->typed_data(), x->dimensions()[1], x->dimensions()[2]});
  }

  Lengths lengths = {sizes[0], static_cast<int64_t>(literals.size()),
                     static_cast<int64_t>(nodes.size()), sizes[5], {}, {}};
  program.widest = 1;
  std::vector<int64_t> width(sizes[5], 0);
  for (int64_t i = 0; i < program.count; ++i) {
    const Step& s = program.steps[i];
    program.widest = std::max({program.widest, s.width, s.c});
    const bool counts = s.op == jaxnmc::kAluSize + kCount;
    if (counts && s.extra >= 0 && s.extra < sizes[5]) width[s.extra] = s.width;
  }
  program.counts_width = 0;
  size_t edge = 0;
  for (int64_t i = 0; i < sizes[5]; ++i) {
    jaxnmc::Counted v = {nullptr,  nullptr,   edges.begin() + edge,
                         width[i], pieces[i], columns[i]};
    edge += pieces[i] + 1;
    if (edge > edges.size() || v.edges[0] < 0 || v.edges[v.pieces] > v.width) {
      return Wrong("edges are in the row");
    }
    if (v.columns) {
      auto t = args.get<ffi::Buffer<ffi::S8>>(at++);
      if (!t.has_value() ||
          static_cast<int64_t>(t->element_count()) !=
              program.layers * v.columns * v.width) {
        return Wrong("tables are int8[layers, columns, width]");
      }
      v.table = t->typed_data();
      auto whole = args.get<ffi::Buffer<ffi::S32>>(at++);
      if (!whole.has_value() || static_cast<int64_t>(whole->element_count()) !=
                                    program.layers * v.columns) {
        return Wrong("sums of tables are int32[layers, columns]");
      }
      v.whole = whole->typed_data();
    }
    program.counted.push_back(v);
    program.count_at.push_back(program.counts_width);
    program.counts_width += v.pieces + v.columns;
  }
  if (at != args.size()) return Wrong("too many arguments");

  const int64_t results = sizes[6] + sizes[2] + 1;
  if (rets.size() != static_cast<size_t>(results)) {
    return Wrong("a result of every kept value and state, and the counts");
  }
  for (int64_t i = 0; i < results; ++i) {
    auto out = rets.get<ffi::Buffer<ffi::S32>>(i);
    if (!out.has_value()) return Wrong("results are int32");
    int32_t* data = (*out)->typed_data();
    const int64_t each = static_cast<int64_t>((*out)->element_count()) /
                         std::max<int64_t>(1, program.layers);
    if (i < sizes[6]) {
      program.kept.push_back(data);
      lengths.kept.push_back(each);
    } else if (i < results - 1) {
      program.bound.push_back(data);
      lengths.bound.push_back(each);
    } else {
      program.counts = data;
      const int64_t want = program.layers * program.counts_width;
      if (static_cast<int64_t>((*out)->element_count()) != want) {
        return Wrong("the counts have a row of all columns per layer");
      }
    }
  }

  for (int64_t i = 0; i < program.count; ++i) {
    const char* what = Missing(program, lengths, program.steps[i]);
    if (what) return Wrong(what);
  }
  for (size_t i = 0; i < chain.size(); i += 3) {
    if (std::min({chain[i], chain[i + 1], chain[i + 2]}) < 0 ||
        std::max(chain[i], chain[i + 1]) + chain[i + 2] > sizes[0]) {
      return Wrong("no such slot");
    }
  }
  Interpreter interpreter(program, slots, &scratch);
  for (int64_t layer = 0; layer < program.layers; ++layer) {
    interpreter.Layer(layer);
    for (size_t i = 0; i < chain.size(); i += 3) {
      std::memmove(slots + chain[i], slots + chain[i + 1],
                   chain[i + 2] * sizeof(int32_t));
    }
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxnmcProgram, Run,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<Ints>("code")
                                  .Attr<Ints>("literals")
                                  .Attr<ffi::Span<const int32_t>>("nodes")
                                  .Attr<Ints>("sizes")
                                  .Attr<Ints>("starts")
                                  .Attr<Ints>("chain")
                                  .Attr<Ints>("pieces")
                                  .Attr<Ints>("edges")
                                  .Attr<Ints>("columns")
                                  .Attr<int64_t>("path"));

// What can be written: a line per instruction, its name, its operands, and the
// names of its numbers.
extern "C" const char* JaxnmcInstructions() {
  static const std::string all = [] {
    std::string text;
    for (int i = 0; i < jaxnmc::kAluSize; ++i) {
      const jaxnmc::Instruction& op = jaxnmc::kAlu[i];
      text += std::string(op.name) + " " + op.numbers + "\n";
    }
    for (const char* name : kSpecialNames) text += std::string(name) + "\n";
    return text;
  }();
  return all.c_str();
}
