# Writes OUTPUT with the commit of SOURCE, touching the file only when it changes.
cmake_minimum_required(VERSION 3.23)
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=* OUTPUT_VARIABLE commit
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit "unknown")
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define STRATA_COMMIT \"@commit@\"\n" @ONLY)
