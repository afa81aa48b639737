// What neurons compute, on whole vectors: the instruction set of `ops.alu` in
// 32-bit integers, by instruction set of the processor.

#ifndef JAXNMC_ALU_H_
#define JAXNMC_ALU_H_

#include <cstdint>

namespace jaxnmc {

// One instruction on n numbers.  Vectors do not overlap `out`.
struct Operands {
  int64_t n;
  const int32_t* a;
  const int32_t* b;
  const int32_t* c;
  int32_t* out;
  int32_t p[3];          // numbers, in the order of `Instruction::numbers`
  const int32_t* nodes;  // of a sigmoid's table
};

// Whether an instruction makes a vector of a vector, one number of a vector, or
// a vector of one number.
enum class Form { kEach, kReduce, kSpread };

// Name as in `ops.alu`, operands and numbers that it takes; what it does with
// plain C++, AVX2 and AVX-512.
struct Instruction {
  const char* name;
  int operands;
  const char* numbers;  // names, by spaces
  void (*run[3])(const Operands&);
  Form form = Form::kEach;
};

extern const Instruction kAlu[];
extern const int kAluSize;

// Balanced digits of n numbers and their sum modulo 2^32; with one plane `high`
// is null.
using SplitFn = void (*)(int64_t n, const int32_t* x, int8_t* high, int8_t* low,
                         int32_t* sum);

// Which of `run` this machine is for, or the one asked for if it has it.
int ChooseAlu(int64_t path);
SplitFn ChooseSplit(int alu);

}  // namespace jaxnmc

#endif  // JAXNMC_ALU_H_
