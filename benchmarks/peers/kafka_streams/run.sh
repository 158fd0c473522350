#!/bin/sh
# Kafka Streams 4.1. HEAP and GC may be set to try others.
exec java -Xms"${HEAP:-1g}" -Xmx"${HEAP:-1g}" "${GC:--XX:+UseParallelGC}" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
  -cp "$BUILD/classes:$BUILD/libs/*" c360bench.Main
