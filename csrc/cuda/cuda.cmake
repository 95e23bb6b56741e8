# CUDA: AUTO where there is a compiler for it, ON or OFF, or HOST: the same sources compiled for the CPU, for tests.
set(FUSEDSTEP_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO, ON, OFF, or HOST to run them on the CPU in tests")
set(cuda_kernels csrc/cuda/finish.cu csrc/cuda/measure.cu csrc/cuda/norm.cu csrc/cuda/ride.cu
                 csrc/cuda/step.cu)
set(cuda_sources ${cuda_kernels} csrc/cuda/batch.cpp csrc/cuda/launch.cpp csrc/cuda/part.cpp csrc/cuda/run.cpp
                 csrc/cuda/runtime.cpp csrc/cuda/tables.cpp)

function(fusedstep_cuda_on_host target)
  # With -O3 the compiler takes minutes.
  set(optimize $<IF:$<BOOL:${FUSEDSTEP_SANITIZE}>,-Og,-O1>)
  set_source_files_properties(${cuda_kernels} PROPERTIES
                              LANGUAGE CXX COMPILE_OPTIONS "-x;c++;-Wno-unknown-pragmas;${optimize}")
  target_sources(${target} PRIVATE ${cuda_sources} tests/cuda_host/fibers.cpp tests/cuda_host/runtime.cpp)
  target_include_directories(${target} PRIVATE tests/cuda_host)
  target_compile_definitions(${target} PRIVATE FS_CUDA_ON_HOST)
endfunction()

if(FUSEDSTEP_PROGRAMS)  # with CUDA on the CPU or without
  if(FUSEDSTEP_CUDA STREQUAL "HOST")
    fusedstep_cuda_on_host(replay)
  else()
    target_sources(replay PRIVATE csrc/cuda/absent.cpp)
  endif()
  return()
endif()

set(cuda ${FUSEDSTEP_CUDA})
if(cuda STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
  set(cuda OFF)
  if(CMAKE_CUDA_COMPILER)
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE version)
    if(version MATCHES "release ([0-9.]+)" AND CMAKE_MATCH_1 VERSION_GREATER_EQUAL 12.1)
      set(cuda ON)
    else()
      message(STATUS "fusedstep: ${CMAKE_CUDA_COMPILER} is older than CUDA 12.1")
    endif()
  endif()
endif()

if(cuda STREQUAL "HOST")
  message(STATUS "fusedstep: CUDA kernels run on the CPU, for tests")
  fusedstep_cuda_on_host(_core)
  target_sources(_core PRIVATE tests/cuda_host/hooks.cpp)
elseif(cuda)
  # One binary for Ampere and Ada, one for Hopper, and code that newer drivers translate for what comes after: half a
  # minute on two cores. Wheels have a binary for every architecture (pyproject.toml).
  if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
  endif()
  enable_language(CUDA)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.1)
    message(FATAL_ERROR "fusedstep: CUDA ${CMAKE_CUDA_COMPILER_VERSION} passes 4,096 bytes of kernel arguments, expected "
                        "12.1 or later, or -DFUSEDSTEP_CUDA=OFF")
  endif()
  message(STATUS "fusedstep: CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that CUDA has C++20
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  endif()
  # The rounding contract, as nvcc spells it.
  add_library(fs_cuda OBJECT ${cuda_sources})
  target_compile_options(fs_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-O3 -fmad=false -prec-div=true -prec-sqrt=true
                         -ftz=false -Xcompiler=-ffp-contract=off>)
  target_include_directories(fs_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_link_libraries(fs_cuda PRIVATE fs_flags)
  # The runtime is linked statically, CMake's default: the module loads where there is no driver.
  target_link_libraries(_core PRIVATE fs_cuda)
  set_target_properties(fs_cuda _core PROPERTIES CUDA_STANDARD 20 CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
  set_target_properties(_core PROPERTIES LINKER_LANGUAGE CXX)
else()
  message(STATUS "fusedstep: no CUDA compiler, for the CPU alone (FUSEDSTEP_CUDA=ON requires one)")
  target_sources(_core PRIVATE csrc/cuda/absent.cpp)
endif()
