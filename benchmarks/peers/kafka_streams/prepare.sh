#!/bin/sh
# Jars with Maven, classes with javac, into $BUILD.
set -e
cd "$(dirname "$0")"
mvn -q -B dependency:copy-dependencies -DoutputDirectory="$BUILD/libs"
javac -nowarn -cp "$BUILD/libs/*" -d "$BUILD/classes" src/main/java/c360bench/*.java
