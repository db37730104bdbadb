# cmake -DNM=… -DOBJECTS=a.o;b.o -P check_isa_symbols.cmake
# The objects of kernels/cpu/isa/ hold instructions that not every CPU has. A weak symbol of theirs (an inline function or a
# template of a shared header) could be the copy that the linker keeps for the whole program: there must be none.
list(LENGTH OBJECTS count)
if(count LESS 6)
  message(FATAL_ERROR "expected the objects of kernels/cpu/isa/, got ${count}: '${OBJECTS}'")
endif()
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only -C ${object} OUTPUT_VARIABLE symbols RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${NM} cannot read ${object}")
  endif()
  if(symbols STREQUAL "")
    message(FATAL_ERROR "${object} defines nothing")
  endif()
  string(REGEX MATCHALL "[^\n]* [WVu] [^\n]*" weak "${symbols}")
  if(weak)
    message(FATAL_ERROR "${object} has weak symbols, see kernels/cpu/isa/simd.h:\n${weak}")
  endif()
  # And every name it exports lies in the namespace of its instruction set.
  string(REGEX MATCHALL "[^\n]* [TDRB] [^\n]*" global "${symbols}")
  foreach(symbol IN LISTS global)
    if(NOT symbol MATCHES "flotilla::${ISA}::|__odr_asan[.]")  # the latter come from AddressSanitizer
      message(FATAL_ERROR "${object} exports a name outside of flotilla::${ISA}:\n${symbol}")
    endif()
  endforeach()
endforeach()
